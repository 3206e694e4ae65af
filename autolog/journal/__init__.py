"""The journal: an append-only log of frames in memory-mapped files, one folder a process.

Bytes only: what a frame means is `autolog.records`' business.
``docs/journal-format.md`` specifies the files.

================  ==========================================================
`layout`          names, positions, frames
`files`           regular files only, read and replaced
`writer`          `Journal`: append without I/O calls, what gives way where space is short
`segments`        files that are mapped, with all of their blocks
`reader`          `Reader`: frames up to the tail, damage
`progress`        `Progress`: the cursor and the account that the shipper keeps
`owner`           who writes a journal, and whether that process is alive
`root`            where journals live, groups, the locks that guard them
================  ==========================================================
"""
