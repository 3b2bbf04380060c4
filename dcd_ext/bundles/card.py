"""The model card of a packed bundle: its README, with what was measured and with commands for the bundle alone."""

import itertools
import re
from typing import Any

from dcd_ext.bundles.sums import SUMS
from dcd_ext.tables import Table, to_markdown

_BLOCK = re.compile(r"^```[a-z]*\n(.*?)^```", re.DOTALL | re.MULTILINE)


def readme_commands(text: str) -> list[str]:
    """Every command line in the code blocks of a README; lines joined at backslashes."""
    blocks = [block.replace("\\\n", " ") for block in _BLOCK.findall(text)]
    lines = (line.strip() for block in blocks for line in block.splitlines())
    return [re.sub(r"\s+", " ", line) for line in lines if line and not line.startswith("#")]


def front_matter(license_text: str) -> str:
    """The header of a Hugging Face model card, as MONAI's ``push_to_hf_hub`` writes it."""
    apache = "Apache License" in license_text and "Version 2.0" in license_text
    name = "apache-2.0" if apache else "unknown"
    return f"---\ntags:\n- monai\n- medical\nlibrary_name: monai\nlicense: {name}\n---\n"


def packed_readme(text: str, name: str, metadata: dict[str, Any], parameters: int, widths: list[int]) -> str:
    """``docs/README.md`` of a bundle in the collection, rewritten for the bundle that travels alone.

    Metadata with the measured metrics, the number of parameters and the encoder widths are those of the packed network.
    """
    text = re.sub(
        r"[\d,]+ parameters, encoder widths [\d, ]+",
        f"{parameters:,} parameters, encoder widths {', '.join(map(str, widths))}",
        text,
    )
    text = text.replace(f"--bundle_root bundles/{name} ", "").replace(f"bundles/{name}/", "")
    sections = re.split(r"(?m)^(?=## )", text)
    for i, section in enumerate(sections):
        if section.startswith("## Performance"):
            sections[i] = f"## Performance\n\n{_performance(metadata)}\n\n"
        elif section.startswith("## MONAI Bundle Commands"):
            sections[i] = _commands(section, name, metadata)
    return "".join(sections)


def _performance(metadata: dict[str, Any]) -> str:
    scores, int8 = _scores(metadata), metadata.get("int8")
    if not int8:
        return scores
    return (
        f"{scores}\n\nINT8 (`models/int8`, for `dcd predict --backend int8` and `configs/fast_cpu.json`): mean Dice "
        f"{int8['dice_int8']:.4f} where float32 has {int8['dice_float32']:.4f}, over the {int8['cases']} held-out "
        "cases that judged the quantisation."
    )


def _scores(metadata: dict[str, Any]) -> str:
    metrics = metadata.get("eval_metrics") or {}
    if not metrics:
        return "These weights were packed without an evaluation record: nothing is claimed of them."
    titles = {"dice": "Dice", "hd95_mm": "HD95 mm", "nsd": "NSD"}
    rows = []
    for key in metrics["dice"]:
        cells = (metrics[n][key] for n in titles)
        rows.append([key, *("–" if c is None else f"{c:.4f}" for c in cells)])
    table = Table("", ["class", *titles.values()], rows)
    cases = f"{metrics['cases']} held-out cases of fold {metrics['fold']}"
    return f"Means over the {cases}, scored against the untouched label files:\n\n{to_markdown(table)}"


def _commands(section: str, name: str, metadata: dict[str, Any]) -> str:
    """The command section: first how to get and check the bundle, last how to train it."""
    packages = {"monai": metadata["monai_version"], "torch": metadata["pytorch_version"]}
    packages.update(metadata.get("required_packages_version", {}))
    pins = " ".join(f"{package}=={version}" for package, version in packages.items())
    before, _, commands = section.partition("shorten the paths.\n")
    if not commands:
        commands = before
    inference, training = _split(commands)
    return (
        "## MONAI Bundle Commands\n\n"
        f"Install what inference needs, unpack the zip (`{name}_v{metadata['version']}.zip`), and check the files "
        "in the bundle's own folder; all further commands run there, too.\n\n"
        f"```\npython -m pip install {pins}\nsha256sum -c {SUMS}\n```\n\n"
        f"{inference}\n"
        "Training and evaluation need the package `dcd_ext` of the DCD bundle collection: in a clone of it, run\n"
        "`python -m pip install .` and prepare the data as above."
        f"{_teacher(name)}\n\n{training}"
    )


def _teacher(name: str) -> str:
    if not name.endswith("_dcd"):
        return ""
    teacher = name.removesuffix("_student_dcd") + "_teacher"
    return (
        f"\nThe teacher's weights are looked for in `../{teacher}/models/model.pt`; "
        "elsewhere: `--teacher_ckpt <file>`.\n"
        "Distillation leaves no trace in this bundle's network or weights."
    )


def _split(commands: str) -> tuple[str, str]:
    """Sentences with their code blocks: those for inference, and the others."""
    inference: list[str] = []
    training: list[str] = []
    paragraphs = re.split(r"\n{2,}", commands.strip())
    for sentence, block in itertools.pairwise(paragraphs):
        if block.startswith("```"):
            (inference if "run inference" in block else training).append(f"{sentence}\n\n{block}\n")
    return "\n".join(inference), "\n".join(training) + "\n"
