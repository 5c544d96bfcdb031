"""A network of its settings: the name of its file in `conf/model/` and what that class takes."""

from collections.abc import Mapping
from typing import Any

from digits.network.base import Network
from digits.settings.targets import construct, load_class


def build_network(settings: Mapping[str, Any]) -> Network:
    """A network with new weights, of ``settings`` as :meth:`Network.settings` gives them.

    Without a name, as in version 0.1, they are those of DeepDigits. The weights that a training goes on from, which its
    settings may name, are left to it.

    Raises:
        ConfigError: there is no file of that name, or its class is no :class:`~digits.network.Network`.
        DigitsError: the class refuses an argument.
    """
    name = settings.get("name", "deepdigits")
    arguments = {key: value for key, value in settings.items() if key not in ("name", "temperature", "weights")}
    network = construct(f"model={name}", load_class("model", name, Network), arguments)
    network.config_name, network.temperature = name, settings.get("temperature", 1.0)
    network.settings()  # what it does not keep is said here, not after the training
    return network
