"""What every test shares: one torch thread, since the machines have two cores and several processes."""

import torch

torch.set_num_threads(1)
