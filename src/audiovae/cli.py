"""The command line: every verb of `audiovae.VERBS`, with the flags that its Python signature says.

A verb's module is imported when the verb is called, so that `audiovae --help` needs no torch. What a parameter wants
of a shell is said beside its type (`api.parameters.Shell`); `--model NAME --model.size 2` is one word by the time
the flags are read, because a flag cannot be a value and have parts.
"""

from __future__ import annotations

import inspect
import json
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin

import pydantic
from cyclopts import App, CycloptsError, Parameter, UnknownCommandError, ValidationError
from pydantic_core import PydanticUndefined

import audiovae
from audiovae.api.shell import Choice, Fields, Shell
from audiovae.errors import AudioVaeError, ConfigError, did_you_mean
from audiovae.memory import keep_freed_memory

if TYPE_CHECKING:
    from audiovae.config import Config

CHOICES = ("model", "data")  # flags that name something and give it options
NAMED_FIRST = ("info",)  # verbs whose first word may be the preset that such options go with
HELP = "Variational autoencoders for audio: from a folder of recordings to a trained model, and back to sound."
EPILOGUE = "A word without a slash is a built-in name; ./music is the folder. `audiovae VERB --help` lists a verb's flags."


def main(words: Sequence[str] | None = None) -> int:
    """Run a command line; return 0, 2 for an error that has its line on stderr, or 130 for Ctrl-C."""
    logging.basicConfig(format="audiovae: %(message)s", level=logging.WARNING, stream=sys.stderr)
    words = list(sys.argv[1:] if words is None else words)
    keep_freed_memory()  # blocks of a sound are of one size, again and again
    try:
        _app()(join_choices(words), exit_on_error=False, print_error=False)
        sys.stdout.flush()
    except AudioVaeError as error:
        return _refuse(str(error))
    except UnknownCommandError as error:  # its own text would import every verb
        word = (error.unused_tokens or [""])[0]
        return _refuse(
            f"'{word}' is not a verb{did_you_mean(word, ' '.join(audiovae.VERBS).split())}"
        )
    except ValidationError as error:
        return _refuse(_field_errors(error))
    except CycloptsError as error:
        return _refuse(str(error))
    except BrokenPipeError:  # the reader of our output (such as `head`) has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:  # a full disk, a file that may not be read
        return _refuse(str(error))
    except KeyboardInterrupt:
        return 130
    return 0


def join_choices(words: Sequence[str]) -> list[str]:
    """Join `--model NAME --model.size 2` to one flag whose word holds both, as JSON.

    >>> join_choices(["train", "--model", "oobleck", "--model.size=2", "--minutes", "5"])
    ['train', '--minutes', '5', '--model={"preset": "oobleck", "size": 2}']
    >>> join_choices(["info", "oobleck", "--model.size", "2"])
    ['info', '--model={"size": 2, "preset": "oobleck"}']
    """
    rest: list[str] = []
    chosen: dict[str, dict[str, Any]] = {}
    waiting = list(words)
    while waiting:
        word = waiting.pop(0)
        flag, has_value, value = word.partition("=")
        family, _, option = flag.removeprefix("--").partition(".")
        if not flag.startswith("--") or family not in CHOICES:
            rest.append(word)
            continue
        if not has_value and waiting and not waiting[0].startswith("--"):
            value = waiting.pop(0)
        elif not has_value and option:
            value = "true"  # --model.causal
        if not value:
            raise ConfigError(f"{flag} wants a value: a name, or a folder with a slash")
        *tables, key = option.replace("-", "_").split(".") if option else ["preset"]
        table = chosen.setdefault(family, {})
        for name in tables:
            table = table.setdefault(name, {})
        table[key] = _read(value) if option else value
    options = chosen.get("model")
    if options and "preset" not in options and len(rest) > 1 and rest[0] in NAMED_FIRST:
        options["preset"] = rest.pop(1)
    return rest + [f"--{family}={json.dumps(options)}" for family, options in chosen.items()]


def _read(text: str) -> Any:
    """A number, a truth value or a list if the text is one in JSON, else the text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _app() -> App:
    """The commands, by name; nothing of them is imported yet."""
    app = App(
        name="audiovae",
        help=HELP,
        help_epilogue=EPILOGUE,
        version=audiovae.__version__,
        result_action="return_value",
        default_parameter=Parameter(negative_iterable=()),
        suppress_keyboard_interrupt=False,
    )
    for place, (words, (_, summary)) in enumerate(audiovae.VERBS.items()):
        *groups, name = words.split()
        parent = app
        for group in groups:
            parent = _group(parent, group, place)
        parent.command(
            f"{__name__}:{words.replace(' ', '_')}", name=name, help=summary, sort_key=place
        )
    return app


def _group(parent: App, name: str, place: int) -> App:
    """The command that a group of verbs stands under, such as `data` of `data scan`."""
    if name not in parent:
        parent.command(App(name=name, help=f"Verbs about {name}.", sort_key=place))
    return parent[name]


def __getattr__(name: str) -> Callable[..., Any]:
    """The command of a verb, made when the command line asks for it by its import path."""
    for words, (module, _) in audiovae.VERBS.items():
        if words.replace(" ", "_") == name:
            return command(getattr(import_module(module), audiovae.python_name(words)))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def command(verb: Callable[..., Any]) -> Callable[..., None]:
    """A verb with the parameters that a shell can give, which prints what came of it."""
    signature = inspect.signature(verb, eval_str=True)
    taken = {p.name for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD}
    flags = [flag for p in signature.parameters.values() for flag in _flags(p, taken)]
    if "quiet" not in taken:
        flags.append(_flag("quiet", bool, False, help="Print nothing but errors."))
    shell = inspect.Signature(flags)

    def run(*args: Any, **kwargs: Any) -> None:
        given = shell.bind(*args, **kwargs).arguments
        quiet = given.get("quiet", False) if "quiet" in taken else given.pop("quiet", False)
        logging.getLogger("audiovae").setLevel(logging.ERROR if quiet else logging.WARNING)
        result = verb(**{name: _plain(value) for name, value in given.items()})
        if not quiet:
            _tell(result, given.get("out"))

    run.__doc__ = verb.__doc__
    run.__signature__ = shell  # type: ignore[attr-defined]
    run.__annotations__ = {flag.name: flag.annotation for flag in flags}
    return run


def _flags(parameter: inspect.Parameter, taken: set[str]) -> Iterator[inspect.Parameter]:
    """What a verb's parameter is on the command line: nothing, one flag, or the fields of a config."""
    notes = get_args(parameter.annotation) if get_origin(parameter.annotation) is Annotated else ()
    for note in notes:
        if isinstance(note, Fields):
            remarks = _remarks(note.config)
            for name, field in note.config.model_fields.items():
                if name not in taken:
                    default = "" if field.default in (None, PydanticUndefined) else field.default
                    shown = f"[default: {default}]" if default != "" else ""
                    help = f"{remarks.get(name, '')} {shown}".strip()
                    yield _flag(name, field.annotation, None, help=help)
            return
        if isinstance(note, Shell):
            if note.type is not None:
                default = parameter.empty if note.required else parameter.default
                yield _flag(parameter.name, note.type, default, parameter.kind, note.help)
            return
    yield _flag(parameter.name, parameter.annotation, parameter.default, parameter.kind)


def _remarks(config: type[Config]) -> dict[str, str]:
    """The comments beside the fields of a config, which say what they are and in which unit."""
    line = re.compile(r"^    (\w+): .*#\s*(.+)$", re.MULTILINE)
    return dict(line.findall(inspect.getsource(config)))


def _flag(
    name: str,
    annotation: Any,
    default: Any,
    kind: Any = inspect.Parameter.KEYWORD_ONLY,
    help: str | None = None,
) -> inspect.Parameter:
    """One flag as cyclopts reads it: a switch that is off has no `--no-` form, a choice is JSON."""
    extra: dict[str, Any] = {"help": help} if help else {}
    if default is None:
        annotation = annotation | None
    if annotation is bool and default is False:
        extra["negative"] = ()
    if Choice in (annotation, *get_args(annotation)):
        extra["converter"] = _choice
    elif name in CHOICES:
        extra["converter"] = _word
    made = Annotated[annotation, Parameter(**extra)] if extra else annotation
    return inspect.Parameter(name, kind, default=default, annotation=made)


def _choice(_: Any, tokens: Sequence[Any]) -> Any:
    """A name, or a name with options as `join_choices` wrote them."""
    text = tokens[0].value
    options = json.loads(text) if text.startswith("{") else {"preset": text}
    return options["preset"] if options.keys() == {"preset"} else options


def _word(_: Any, tokens: Sequence[Any]) -> str:
    """A name alone, where there is nothing to give options to."""
    chosen = _choice(_, tokens)
    if not isinstance(chosen, str):
        options = ", ".join(name for name in chosen if name != "preset")
        raise ConfigError(f"a model that is made already takes no options: leave out {options}")
    return chosen


def _plain(value: Any) -> Any:
    """A config that the command line filled in part, as a table of what was given."""
    return value.model_dump(exclude_unset=True) if hasattr(value, "model_dump") else value


def _tell(result: Any, out: Path | None) -> None:
    """Print what came of a verb: where it is, or what it says of itself."""
    described = result.describe() if hasattr(result, "describe") else ""
    if out is not None or isinstance(result, Path):
        print(f"wrote {out or result}" + (f": {described}" if described else ""))
    elif result is not None:
        print(described or result)


def _field_errors(error: ValidationError) -> str:
    """What pydantic says of a flag, in one line."""
    cause = error.__cause__
    if not isinstance(cause, pydantic.ValidationError):
        return str(error)
    where = error.argument.name if error.argument else ""
    return "; ".join(
        f"{'.'.join([where, *map(str, e['loc'])])}: {e['msg'][0].lower() + e['msg'][1:]}, got {e['input']!r}"
        for e in cause.errors()
    )


def _refuse(message: str) -> int:
    """Say why, in one line, and give the exit code."""
    print("audiovae: " + " ".join(message.split()), file=sys.stderr)
    return 2
