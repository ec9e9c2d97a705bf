# SPDX-License-Identifier: Apache-2.0
"""`python -m vlakit.cli` is `vlakit`."""

import sys

from vlakit.cli.main import main

sys.exit(main())
