"""The shipping half at work: sends what the journals of one group hold.

`loop`      a step further with each journal, as live shipping and ``autolog sync`` do it
`source`    one journal on its way
`uploads`   the files of the journals, one at a time
`live`      the process, and when it ends
"""

from autolog.shipper.live import main, ship
from autolog.shipper.loop import Shipper

__all__ = ["Shipper", "main", "ship"]
