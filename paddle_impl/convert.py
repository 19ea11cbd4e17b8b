"""`python -m paddle_impl.convert`: the part of `align convert` that needs PaddlePaddle.

Origin: written for this project.
Licence: Apache-2.0
"""

import argparse
import json
import sys

from paddle_impl.checkpoint import WeightsError, write_checkpoint
from paddle_impl.weights import build_for, load_reference_state, read_weights, sha256, transposed_keys, write_weights


def main(argv=None):
    """Prints one JSON object about SOURCE: variant, notes, sha256 of each tensor by official key, transposed keys.

    SOURCE is loaded into the model it is for. `read SOURCE OUT.safetensors` writes its reference state, `write SOURCE
    OUT` a file of a kind of this side's; OUT is read again and loaded, and `read_back` has its tensors' sha256. If that
    cannot be done: one line on standard error, and exit 2 for weights that cannot be used, 3 for a file that cannot be
    written.
    """
    parser = argparse.ArgumentParser(prog="python -m paddle_impl.convert")
    parser.add_argument("action", choices=["read", "write"])
    parser.add_argument("source")
    parser.add_argument("target")
    parser.add_argument("--variant", help="the only variant to accept; any that fits by default")
    parser.add_argument("--keys", choices=["official", "timm"], default="official", help="of the file that is written")
    args = parser.parse_args(argv)
    notes = []
    try:
        state = read_weights(args.source, notes=notes)
        variant, model = build_for(state, args.variant)
        load_reference_state(model, state)
    except WeightsError as error:
        text = str(error)
        print(text if text.startswith(args.source) else f"{args.source}: {text}", file=sys.stderr)
        return 2
    try:
        if args.action == "read":
            write_checkpoint(args.target, state)
        else:
            write_weights(args.target, state, model, args.keys)
        again = read_weights(args.target, model)
        load_reference_state(model, again)
    except WeightsError as error:
        print(error, file=sys.stderr)
        return 3
    hashes, read_back = ({key: sha256(array) for key, array in arrays.items()} for arrays in (state, again))
    facts = {"variant": variant, "notes": notes, "transposed": transposed_keys(model)}
    print(json.dumps(facts | {"sha256": hashes, "read_back": read_back}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
