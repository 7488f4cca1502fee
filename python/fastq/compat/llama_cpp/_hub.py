"""Files of the Hugging Face Hub, by its own client."""

from __future__ import annotations

import fnmatch
import json
import os
from pathlib import PurePosixPath


def download(
    repo_id: str,
    filename: str | None,
    additional_files: list[str] | None,
    local_dir: str | os.PathLike[str] | None,
    cache_dir: str | os.PathLike[str] | None,
) -> str:
    """The path of a file, after it and those beside it were downloaded.

    Raises:
        ImportError: ``huggingface_hub`` is not installed.
        ValueError: A pattern matches no file, or several.
    """
    try:
        from huggingface_hub import HfFileSystem, hf_hub_download
        from huggingface_hub.utils import validate_repo_id
    except ImportError as error:
        message = "Llama.from_pretrained needs the huggingface-hub package: pip install huggingface-hub"
        raise ImportError(message) from error
    validate_repo_id(repo_id)
    listed = HfFileSystem().ls(repo_id, recursive=True)
    names = [entry["name"] if isinstance(entry, dict) else entry for entry in listed]
    files = [str(PurePosixPath(name).relative_to(repo_id)) for name in names]
    paths = []
    for pattern in (filename or "*.gguf", *(additional_files or ())):
        matching = [file for file in files if fnmatch.fnmatch(file, pattern)]
        if len(matching) != 1:
            found = "Multiple files found" if matching else "No file found"
            available = json.dumps(matching or files)
            raise ValueError(f"{found} in {repo_id} that match {pattern}\n\nAvailable Files:\n{available}")
        path = PurePosixPath(matching[0])
        subfolder = None if str(path.parent) == "." else str(path.parent)
        paths.append(
            hf_hub_download(
                repo_id=repo_id, filename=path.name, subfolder=subfolder, local_dir=local_dir, cache_dir=cache_dir
            )
        )
    return str(paths[0])
