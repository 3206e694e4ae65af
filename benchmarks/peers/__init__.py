"""autolog side by side with every peer, on the same work, each in processes of its own.

`contenders` are the ways of logging, `harness` runs their processes (`child`) and readers
(`reader`), a module for each measurement says what is asked of them, and `report` keeps the
results and writes them into the docs.
"""
