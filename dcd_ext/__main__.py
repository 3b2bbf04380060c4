"""``python -m dcd_ext`` is ``dcd``."""

import sys

from dcd_ext.commands.main import main

sys.exit(main())
