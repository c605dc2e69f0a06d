"""python -m onexn_plugins.cli: the `onexn` command, for launchers such as torchrun that start a module."""

import sys

from onexn_plugins.cli import main

sys.exit(main())
