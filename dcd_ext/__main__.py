"""``python -m dcd_ext`` is ``dcd``."""

from dcd_ext.commands.main import main

raise SystemExit(main())
