"""Where tests of learning learn: on the processor, unless TEST_DEVICE names another device."""

import os

TEST_DEVICE = os.environ.get("TEST_DEVICE", "cpu")
