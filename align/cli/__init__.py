"""The `align` command: one module a sub-command, imported only when it is called, so that `--help` stays quick."""

import argparse
import importlib
import os
import sys
import traceback

from align import __version__
from align.errors import AlignError

# name: (module, one line of help)
COMMANDS = {
    "run": ("run", "record both sides, compare them, write the reports; exit 0 only if aligned"),
    "check": ("check", "compare any two models, given by their import paths, without a file to write"),
    "record": ("record", "record one side only, to be compared with `align diff`"),
    "diff": ("diff", "compare recordings made earlier or elsewhere, or two reprod_log files"),
    "zoo": ("zoo", "compare many pairs in a row: by default the two frameworks' own models and layers"),
    "freeze": ("freeze", "write what the reference computes into one file that `run --against` judges a port by"),
    "report": ("report", "write report.html, junit.xml and summary.md again from a run's folder, whatever its verdict"),
    "mutate": ("mutate", "put known bugs into copies of the port and see whether the gate goes red, and where"),
    "convert": ("convert", "convert weights among .pth, .safetensors and .pdparams"),
    "cases": ("cases", "list the cases"),
    "doctor": ("doctor", "show interpreters, versions, devices and every switch: asked, in force, not available"),
}


def main(argv: list[str] | None = None) -> int:
    """Run the command line; the answer is the exit code (see README, exit codes)."""
    arguments = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(
        prog="align",
        description="Prove that a PaddlePaddle port computes what its PyTorch reference computes.",
        epilog="""examples:
  align run --case pit_probe              both sides of a case, every step; reports in log_reprod
  align run forward --case pit_s          one step
  align COMMAND --help                    options and examples of a command

exit codes: 0 aligned; 1 misaligned, vacuous or missing coverage; 2 usage or unusable input; 3 environment;
4 incomparable recordings; 5 nothing compared""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"align {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    # Before anything imports numpy: the workers compute, and spinning threads of this process take their cores away.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # Only the named command's module is imported; the others are there for the listing.
    named = next((word for word in arguments if not word.startswith("-")), None)
    for name, (module, text) in COMMANDS.items():
        sub = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        if name == named:
            try:
                loaded = importlib.import_module(f"align.cli.{module}")
            except ModuleNotFoundError as error:
                return _lacking(error)
            loaded.configure(sub)
            sub.formatter_class = argparse.RawDescriptionHelpFormatter
            examples = "\n  ".join(["examples:", *getattr(loaded, "EXAMPLES", ())])
            sub.epilog = "\n\n".join(filter(None, [examples, sub.epilog]))
            sub.set_defaults(execute=loaded.execute)
    args = parser.parse_args(arguments)
    try:
        code: int = args.execute(args)
        sys.stdout.flush()  # at the interpreter's end it would be too late to say that it failed
        return code
    except AlignError as error:
        return _tell(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _tell("interrupted; earlier results are untouched", 130)
    except ModuleNotFoundError as error:
        return _lacking(error)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 3
    except OSError as error:
        return _tell(f"{error.filename or 'system'}: {error.strerror}; free space or fix access, then run again", 3)
    except Exception as error:
        traceback.print_exc()
        return _tell(f"internal: {type(error).__name__}: {error}; please report it with the lines above", 3)


def _lacking(error: ModuleNotFoundError) -> int:
    return _tell(f"{sys.executable} has no package {error.name!r}; run scripts/setup.sh", 3)


def _tell(message: str, code: int) -> int:
    print(f"align: error: {message}", file=sys.stderr)
    return code
