"""Trained models on the disk: safetensors, each with a JSON card that says how it was made.

A network is rebuilt from its card, out of a closed table; nothing is ever unpickled.
"""

import json
from pathlib import Path

import safetensors.torch
import torch
from torch import nn

from ..classifier import Classifier
from ..data.files import data_folder, sha256, written_beside
from ..denoiser import Denoiser
from ..networks import MLP, ConvNet, Judge, UNet

NETWORKS = {"MLP": MLP, "UNet": UNet, "ConvNet": ConvNet, "Judge": Judge}
"""What a card may name as network."""

MODELS: dict[str, tuple] = {
    "Denoiser": (Denoiser, ("target", "sigma_data")),
    "Classifier": (Classifier, ("sigma_data",)),
}
"""What a card may name as model, and what a model is told beside its network."""

SHIPPED = Path(__file__).parents[1] / "weights"
"""The weights that come with the library, in a clone and in an installed copy alike."""

CARD_ENTRIES = (
    "architecture", "command", "seed", "dataset", "dataset_sha256", "schedule", "hardware",
    "duration_s", "quality",
)  # fmt: skip


def build(architecture: dict) -> nn.Module:
    """The network a card describes, e.g. {"network": "MLP", "shape": [2], "width": 128}.

    Raises ValueError for a network that is not in `NETWORKS`, or arguments it does not take.
    """
    arguments = dict(architecture)
    network = arguments.pop("network", None)
    if network not in NETWORKS:
        raise ValueError(f"network = {network!r}: choose one of {', '.join(NETWORKS)}")
    try:
        return NETWORKS[network](**arguments)
    except TypeError as error:
        raise ValueError(f"{network} cannot be built from {arguments}: {error}") from error


def save(name: str | Path, model: Denoiser | Classifier, card: dict) -> Path:
    """Write weights and card of a model of MODELS, and return the path of the weights.

    name: a path that ends in .safetensors, or the bare name of a model, which goes to the folder
    `weights/` of the data: `load` looks there before it takes what is shipped. card: the entries
    CARD_ENTRIES; the rest is filled in here.

    Raises ValueError for a model of another kind, a card that lacks an entry or cannot be written
    as JSON, or one whose architecture is not the network's; OSError where the disk refuses.
    """
    content, described = _written(model, card)
    path = _own(name)
    with written_beside(path) as weights, written_beside(_card_path(path)) as text:
        weights.write_bytes(content)
        text.write_bytes(described)
    return path


def check(model: Denoiser | Classifier, card: dict) -> None:
    """Raise the ValueError that `save` would: to be asked before hours of training, not after."""
    _written(model, card)


def _written(model, card: dict) -> tuple[bytes, bytes]:
    """What is written of a model: its weights, and its card, from which it can be rebuilt."""
    lacking = [entry for entry in CARD_ENTRIES if entry not in card]
    if lacking:
        raise ValueError(f"the card lacks {', '.join(lacking)}")
    kind = type(model).__name__
    if kind not in MODELS:
        raise ValueError(f"a {kind} cannot be kept: give one of {', '.join(MODELS)}")
    state = {key: value.contiguous() for key, value in model.net.state_dict().items()}
    content = safetensors.torch.save(state)
    card = card | {
        "model": kind,
        **{setting: getattr(model, setting) for setting in MODELS[kind][1]},
        "parameters": sum(value.numel() for value in model.net.parameters()),
        "sha256": sha256(content),
    }
    text = _json(card)
    with torch.random.fork_rng(devices=[]):  # a run that is asked goes on with its own numbers
        _rebuilt(json.loads(text), state)
    return content, text.encode()


def _json(card: dict) -> str:
    for entry, value in card.items():
        try:
            json.dumps(value)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"the card's {entry} = {value!r} cannot be written as JSON ({error}): give "
                "numbers, texts, and lists or dictionaries of them"
            ) from error
    return json.dumps(card, indent=2) + "\n"


def read_card(name: str | Path) -> dict:
    """The card of a model. Raises FileNotFoundError or ValueError that names the file."""
    path = _card_path(_path(name))
    try:
        card = json.loads(_read(path))
        return card if isinstance(card, dict) else {}
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is no card ({error}): {_remedy(path)}") from error


def load(name: str | Path):
    """The Denoiser or Classifier of that name (or path), ready for use, checked against its card.

    Raises FileNotFoundError where weights or card are missing, ValueError where they are damaged
    or do not belong together; each names the file and what to do.
    """
    path = _path(name)
    content, card = _read(path), read_card(path)
    if sha256(content) != card.get("sha256"):
        raise ValueError(
            f"{path} ({len(content)} bytes) is not the file its card was written for, it is cut "
            f"short or altered: {_remedy(path)}"
        )
    try:
        model = _rebuilt(card, safetensors.torch.load(content))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{_card_path(path)} does not describe the weights beside it ({error}): {_remedy(path)}"
        ) from error
    return model.eval().requires_grad_(False)


def _rebuilt(card: dict, state: dict):
    kind, settings = MODELS[card["model"]]
    model = kind(build(card["architecture"]), **{setting: card[setting] for setting in settings})
    try:
        model.net.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"the weights do not fit into {card['architecture']}") from error
    return model


def _path(name: str | Path) -> Path:
    """Where to read: the path, one's own weights of that name, or else the shipped ones."""
    own = _own(name)
    shipped = SHIPPED / own.name
    replaced = own == Path(name) or own.exists() or _card_path(own).exists()
    return own if replaced or not shipped.exists() else shipped


def _own(name: str | Path) -> Path:
    """Where to write: the path, or the bare name in the folder of one's own weights."""
    path = Path(name)
    if path.suffix == ".safetensors":
        return path
    return data_folder() / "weights" / f"{name}.safetensors"


def _card_path(path: Path) -> Path:
    return path.with_suffix(".json")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{path} is missing: {_remedy(path)}, or name the folder that holds weights/ in the "
            "environment variable DIDIFF_DATA"
        ) from error


def _remedy(path: Path) -> str:
    again = f"make it again with `python -m didiff train {path.stem}`"
    if path.parent != SHIPPED and (SHIPPED / path.name).exists():
        return f"{again}, or delete it and its card to have the shipped ones"
    return again
