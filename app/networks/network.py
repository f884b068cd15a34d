"""A network as everyone here holds it: a backbone that makes features, a head that scores label ids, and its spec.

Built by `catalog.build`, grown by `growth.grow`. Knows nothing of files, SQL or how it is trained.
"""

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from app.networks.head import Head
from app.networks.power import Power
from app.networks.projection import Projection
from app.networks.spec import NetworkSpec


class Network(nn.Module):
    """Maps (batch, channels, size, size) or (batch, size), float32, to (batch, labels).

    Column i scores `spec.labels[i]`. Labels stand in the order in which they came, never sorted by id or name:
    nothing that comes later moves a column. Who gives a `projection` shares one that was drawn before.
    """

    def __init__(
        self, spec: NetworkSpec, backbone: nn.Module, head: Head, width: int, projection: Projection | None = None
    ) -> None:
        super().__init__()
        self.spec = spec
        self.backbone = backbone
        self.head = head
        self.width = width
        self.power = nn.Identity() if spec.power is None else Power(spec.power)
        drawn = projection or (Projection(width, spec.projection, spec.seed) if spec.projection else None)
        self.projection = drawn or nn.Identity()

    @property
    def head_width(self) -> int:
        """How many numbers the head is fed: `width`, or the projection's."""
        return self.spec.projection or self.width

    def raw_features(self, inputs: Tensor) -> Tensor:
        """Map a normalised batch to what the backbone makes of it, (batch, width)."""
        features: Tensor = self.backbone(inputs)
        return features

    def fed(self, features: Tensor) -> Tensor:
        """Map what the backbone made, (batch, width), to what the head is fed, (batch, head_width)."""
        fed: Tensor = self.projection(self.power(features))
        return fed

    def features(self, inputs: Tensor) -> Tensor:
        """Map a normalised batch to what the head is fed, (batch, head_width)."""
        return self.fed(self.raw_features(inputs))

    def rest(self) -> "Network":
        """Put into eval mode. A backbone that is in it already is not walked through: it may have hundreds of modules.

        Costs milliseconds less than `eval` where only a head is new.
        """
        self.training = False
        for module in (self.head, self.projection, self.backbone):
            if module.training:
                module.eval()
        return self

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(inputs))
        return logits  # (batch, labels)


def batch_norms(network: nn.Module) -> list[nn.Module]:
    """List the layers that keep running statistics of their batches.

    Small or one-sided batches wreck such statistics, so whoever trains keeps these in `eval()`.
    """
    return [module for module in network.modules() if isinstance(module, _BatchNorm)]
