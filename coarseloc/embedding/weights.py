"""Where a backbone's weights lie, and the digest of their bytes. Looks at files; loads no model.

In order: a Hugging Face folder under the weights folder, Meta's original `.pth` there, the local
Hugging Face cache. The network is asked only by `download`.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from coarseloc.core import files, ids
from coarseloc.core.errors import WeightsError
from coarseloc.embedding.specs import BackboneSpec

HUB_FILES = ["config.json", "preprocessor_config.json", "model.safetensors", "model*.safetensors*", "LICENSE*"]


@dataclass(frozen=True, slots=True)
class LocatedWeights:
    """Where a backbone's weights lie. `spec` has every number, from config.json where the row leaves it open."""

    spec: BackboneSpec
    kind: str  # "folder", "pth" or "hub" (the local Hugging Face cache)
    path: Path  # a Hugging Face folder, or the .pth file


@dataclass(frozen=True, slots=True)
class MissingWeights:
    """Why a backbone cannot be loaded on this machine, and what to do about it."""

    spec: BackboneSpec
    reason: str
    remedy: str

    def error(self) -> WeightsError:
        return WeightsError(f"backbone {self.spec.name}: {self.reason}. {self.remedy}")


def find(spec: BackboneSpec, weights_dir: Path, *, allow_hub: bool = False) -> LocatedWeights | MissingWeights:
    """Locate the weights, by file names and config.json alone.

    With `allow_hub` a backbone that is not on this machine is downloaded (gated: an accepted licence and
    a token are needed); WeightsError says why where that fails.
    """
    if spec.folder is not None:
        return _check_folder(spec, spec.folder, "folder")
    folders = [weights_dir / name for name in _possible_folder_names(spec)]
    for folder in folders:
        if _is_model_folder(folder):  # the first one decides: a broken copy is reported, not passed over
            return _check_folder(spec, folder, "folder")
    for folder in (weights_dir, *folders):
        if pth := _find_pth(spec, folder):
            return LocatedWeights(spec, "pth", pth)
    if cached := _find_in_hub_cache(spec):
        in_cache = _check_folder(spec, cached, "hub")
        if isinstance(in_cache, LocatedWeights) or not allow_hub:
            return in_cache
    if allow_hub:
        return download(spec)
    empty = [f"{folder} holds neither config.json nor a .pth" for folder in folders if folder.is_dir()]
    return MissingWeights(spec, "; ".join(empty) or f"no weights under {weights_dir}", _remedy(spec, weights_dir))


def require(spec: BackboneSpec, weights_dir: Path, *, allow_hub: bool = False) -> LocatedWeights:
    """Locate the weights as `find`; raises WeightsError where they are missing."""
    weights = find(spec, weights_dir, allow_hub=allow_hub)
    if isinstance(weights, MissingWeights):
        raise weights.error()
    return weights


def _remedy(spec: BackboneSpec, weights_dir: Path) -> str:
    """Return what a user does to have these weights, in one line."""
    if spec.hub_id is None:
        return f"Put its Hugging Face folder (config.json, model.safetensors) at {spec.folder}"
    return (
        f"Accept the licence at https://huggingface.co/{spec.hub_id}, then either log in (`hf auth login`) and allow "
        f"the hub, or copy the model's folder to {weights_dir / spec.slug}, "
        f"or the original {spec.pth_name} to {weights_dir}"
    )


def _possible_folder_names(spec: BackboneSpec) -> list[str]:
    hub_name = (spec.hub_id or spec.name).rpartition("/")[2]
    return list(dict.fromkeys([spec.name, spec.slug, hub_name]))


def _is_model_folder(folder: Path) -> bool:
    return (folder / "config.json").is_file() or any(folder.glob("*.safetensors"))


def _find_pth(spec: BackboneSpec, folder: Path) -> Path | None:
    """Find the original file by its full name, else the only file of that name without or with another hash."""
    if spec.pth_name is None:
        return None
    if (folder / spec.pth_name).is_file():
        return folder / spec.pth_name
    stem = spec.pth_name.rpartition("-")[0]
    candidates = sorted(folder.glob(f"{stem}*.pth"))
    return candidates[0] if len(candidates) == 1 else None


def _find_in_hub_cache(spec: BackboneSpec) -> Path | None:
    """Find the snapshot in the local Hugging Face cache, without the network."""
    if spec.hub_id is None:
        return None
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(spec.hub_id, "config.json")
    return Path(config).parent if isinstance(config, str) else None


# --- Hugging Face folders ---------------------------------------------------------------------------


def _check_folder(spec: BackboneSpec, folder: Path, kind: str) -> LocatedWeights | MissingWeights:
    """Check a folder by its file names and config.json, and fill the row's open numbers from it."""
    if not folder.is_dir():
        return MissingWeights(spec, f"there is no folder {folder}", _remedy(spec, folder.parent))
    try:
        if not (folder / "config.json").is_file():
            raise WeightsError(f"{folder} has no config.json, so it is no complete Hugging Face folder")
        weight_files(folder)
        return LocatedWeights(_complete_row(spec, read_json(folder / "config.json"), folder), kind, folder)
    except WeightsError as error:
        return MissingWeights(spec, str(error), f"Mend or remove {folder}")


def weight_files(folder: Path) -> list[Path]:
    """List the safetensors files of a Hugging Face folder, in order; raises WeightsError where any is missing."""
    index = folder / "model.safetensors.index.json"
    names = ["model.safetensors"]
    if index.is_file():
        names = sorted(set(read_json(index).get("weight_map", {}).values()))
    missing = [name for name in names if not (folder / name).is_file()]
    if missing or not names:
        bin_files = ", ".join(sorted(path.name for path in folder.glob("*.bin"))) or "nothing else to load"
        raise WeightsError(
            f"{folder} has no {missing[0] if missing else 'safetensors file'} (found: {bin_files}); "
            "only safetensors are read"
        )
    return [folder / name for name in names]


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file; raises WeightsError where it is anything else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path} cannot be read as JSON ({error})") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path} holds a {type(content).__name__}, expected a JSON object")
    return content


def _complete_row(spec: BackboneSpec, config: dict[str, Any], folder: Path) -> BackboneSpec:
    """Fill the row's open numbers from config.json; raises WeightsError where config.json contradicts the row."""
    stated = {
        "dim": config.get("hidden_size") or _last(config.get("hidden_sizes")),
        "layers": config.get("num_hidden_layers"),
        "heads": config.get("num_attention_heads"),
        "mlp": config.get("intermediate_size"),
        "patch": _first(config.get("patch_size")),
        "gated": config.get("use_gated_mlp"),
    }
    invalid = [
        f"{k} {v!r}" for k, v in stated.items() if v is not None and (not isinstance(v, int) or v < (k != "gated"))
    ]
    if invalid:
        raise WeightsError(f"{folder}/config.json has {', '.join(invalid)}: expected whole numbers above 0")
    if spec.is_dinov3:
        # Keys may be absent from an old config.json; loading compares the complete configuration again.
        conflicts = [
            f"{k} {v}, expected {getattr(spec, k)}" for k, v in stated.items() if v not in (None, getattr(spec, k))
        ]
        if config.get("model_type") != "dinov3_vit":
            conflicts.insert(0, f"model_type {config.get('model_type')!r}, expected 'dinov3_vit'")
        if conflicts:
            raise WeightsError(
                f"{folder} is another architecture than {spec.name}: config.json has {'; '.join(conflicts)}"
            )
        return spec
    if not stated["dim"]:
        raise WeightsError(
            f"{folder}/config.json (model_type {config.get('model_type')!r}) states no hidden_size: "
            "expected a vision encoder alone (of a text-image model, save its vision_model)"
        )
    return replace(spec, **{key: value for key, value in stated.items() if value is not None})


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, list) and value else value


def _last(value: Any) -> Any:
    return value[-1] if isinstance(value, list) and value else value


def check_normalisation(weights: LocatedWeights) -> None:
    """Raise WeightsError where the folder states another mean or std than the row: that error would be silent."""
    path = weights.path / "preprocessor_config.json"
    if weights.spec.is_dinov3 or not path.is_file():
        return
    stated = read_json(path)
    for key, ours in (("image_mean", weights.spec.mean), ("image_std", weights.spec.std)):
        theirs = stated.get(key)
        if theirs is not None and not _is_close(theirs, ours):
            raise WeightsError(
                f"{path} states {key} {theirs}, the [[backbones]] row of {weights.spec.name} has {list(ours)}: "
                f"correct {key.removeprefix('image_')} in the row"
            )


def _is_close(theirs: Any, ours: tuple[float, float, float]) -> bool:
    return len(theirs) == 3 and all(abs(a - b) < 1e-3 for a, b in zip(theirs, ours, strict=True))


# --- the hub ----------------------------------------------------------------------------------------


def download(spec: BackboneSpec) -> LocatedWeights:
    """Fetch a gated model into the Hugging Face cache, or say in one line why that cannot be."""
    if spec.hub_id is None:
        raise WeightsError(f"backbone {spec.name} is not on the Hugging Face hub: it lives in {spec.folder}")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    page = f"https://huggingface.co/{spec.hub_id}"
    try:
        folder = Path(snapshot_download(spec.hub_id, allow_patterns=HUB_FILES))
    except GatedRepoError as error:
        raise WeightsError(
            f"{spec.hub_id} is gated and this account may not read it: accept the licence at {page}, "
            "then log in with `hf auth login` or set HF_TOKEN"
        ) from error
    except RepositoryNotFoundError as error:  # the hub's answer to a wrong token, too
        raise WeightsError(f"the hub does not show {spec.hub_id}: check the token (HF_TOKEN) and {page}") from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise WeightsError(
            f"the hub cannot be reached for {spec.hub_id} ({type(error).__name__}): "
            "go on-line, or copy the weights by hand"
        ) from error
    weights = _check_folder(spec, folder, "hub")
    if isinstance(weights, MissingWeights):
        raise weights.error()
    return weights


# --- digests ----------------------------------------------------------------------------------------


def weights_digest(weights: LocatedWeights, cache_dir: Path | None = None) -> str:
    """Return the SHA-256 over the bytes that decide the embeddings: the .pth, or config.json and the safetensors files.

    Per-file digests are remembered in `cache_dir` by (path, size, mtime_ns), so that gigabytes are read once.
    """
    if weights.kind == "pth":
        return _file_digest(weights.path, cache_dir)
    paths = [weights.path / "config.json", *weight_files(weights.path)]
    return hashlib.sha256("".join(_file_digest(path, cache_dir) for path in paths).encode()).hexdigest()


def recheck(weights: LocatedWeights, cache_dir: Path) -> str:
    """Return `weights_digest` of the bytes as they are now. Raises WeightsError where they differ from what is
    remembered of files of the same size and time."""
    remembered, actual = weights_digest(weights, cache_dir), weights_digest(weights)
    if remembered != actual:
        raise WeightsError(
            f"the weights of {weights.spec.name} in {weights.path} are damaged: their bytes have changed while size "
            "and time have not. Copy them again from where they came from"
        )
    return actual


def _file_digest(path: Path, cache_dir: Path | None) -> str:
    stat = path.stat()
    key = f"{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}"
    cache_file = None if cache_dir is None else cache_dir / "weights-digests.json"
    digests = _cached_digests(cache_file)
    if key not in digests:
        with path.open("rb") as file:
            digests[key] = hashlib.file_digest(file, "sha256").hexdigest()
        if cache_file is not None:
            cache_file.parent.mkdir(parents=True, exist_ok=True)
            content = {"digests": digests, "digest": ids.digest(digests)}
            files.write_text(cache_file, json.dumps(content, indent=1))
    return digests[key]


def _cached_digests(cache_file: Path | None) -> dict[str, str]:
    if cache_file is None or not cache_file.is_file():
        return {}
    try:
        content = json.loads(cache_file.read_text(encoding="utf-8"))
        digests = dict(content["digests"])
        return digests if ids.digest(digests) == content["digest"] else {}
    except (OSError, ValueError, KeyError, TypeError):  # a cache: what is not as it was written is computed again
        return {}
