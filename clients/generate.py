"""Regenerates the committed stubs from `protos/`; with `--check` only says whether they are fresh.

    python clients/generate.py              write the stubs and the descriptor set
    python clients/generate.py --check      exit 1 if what is committed differs
    python clients/generate.py --image F    write the image that `buf lint` and `buf breaking` read
    python clients/generate.py --release    renew `protos/released.binpb`, the image that `buf breaking` holds us to

The rules of protovalidate come from the descriptor that its wheel carries, since its .proto file is on no registry that
Python reaches; their stub ships with ours, in the namespace package `buf`.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from grpc_tools import protoc
from protovalidate._gen.buf.validate import validate_pb

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
PYTHON = ROOT / "clients" / "python"
RELEASED = PROTOS / "released.binpb"
DESCRIPTORS = Path("jobledger/v1/descriptors.binpb")
VALIDATE = "buf/validate/validate.proto"

# `buf` marks a file that an image holds only because others import it with field 8042 {1: true}.
BUF_IMPORT_MARK = bytes.fromhex("d2f603020801")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="exit 1 if the committed stubs are not fresh")
    parser.add_argument("--image", type=Path, metavar="FILE", help="write a buf image")
    parser.add_argument("--release", action="store_true", help="renew the image of the last release")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory)
        generate(out)
        if options.image:
            options.image.write_bytes(buf_image(out, comments=True))
        elif options.release:
            RELEASED.write_bytes(buf_image(out, comments=False))
        elif options.check:
            return report(differences(out))
        else:
            install(out)
    return 0


def generate(out: Path) -> None:
    """Writes stubs and descriptor set below `out`, laid out as in `clients/python`."""
    (out / "rules.binpb").write_bytes(validate_descriptors())
    (out / DESCRIPTORS).parent.mkdir(parents=True)
    ours = sorted(str(path.relative_to(PROTOS)) for path in PROTOS.rglob("*.proto"))
    run_protoc(
        out,
        f"--python_out={out}",
        f"--mypy_out=relax_strict_optional_primitives:{out}",
        VALIDATE,
    )
    run_protoc(
        out,
        f"--python_out={out}",
        f"--grpc_python_out={out}",
        f"--mypy_out={out}",
        f"--mypy_grpc_out={out}",
        f"--descriptor_set_out={out / DESCRIPTORS}",
        "--include_imports",
        "--include_source_info",
        *ours,
    )
    for stub in out.rglob("*_pb2_grpc.py*"):
        if not has_service(stub):
            stub.unlink()


def run_protoc(out: Path, *arguments: str) -> None:
    google = next(Path(entry) for entry in sys.path if (Path(entry) / "google/api/annotations.proto").exists())
    bundled = Path(protoc.__file__).parent / "_proto"
    command = [
        sys.executable,
        "-m",
        "grpc_tools.protoc",
        f"--plugin=protoc-gen-mypy={Path(sys.executable).parent / 'protoc-gen-mypy'}",
        f"--plugin=protoc-gen-mypy_grpc={Path(sys.executable).parent / 'protoc-gen-mypy_grpc'}",
        f"--proto_path={PROTOS}",
        f"--proto_path={google}",
        f"--proto_path={bundled}",
        f"--descriptor_set_in={out / 'rules.binpb'}",
        *arguments,
    ]
    subprocess.run(command, check=True)


def validate_descriptors() -> bytes:
    """The FileDescriptorSet of buf/validate/validate.proto, without what it imports."""
    rules = FileDescriptorProto.FromString(validate_pb.desc().proto.to_binary())
    return FileDescriptorSet(file=[rules]).SerializeToString(deterministic=True)


def has_service(stub: Path) -> bool:
    return "Servicer:" in stub.read_text() or "Servicer(" in stub.read_text()


def buf_image(out: Path, *, comments: bool) -> bytes:
    """Ours as a buf image: files that are only imported carry the mark that spares them the lint."""
    files = FileDescriptorSet.FromString((out / DESCRIPTORS).read_bytes()).file
    image = bytearray()
    for file in files:
        if not comments:
            file.ClearField("source_code_info")
        body = file.SerializeToString(deterministic=True)
        if not file.name.startswith("jobledger/"):
            body += BUF_IMPORT_MARK
        image += b"\x0a" + varint(len(body)) + body
    return bytes(image)


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def generated(below: Path) -> dict[str, bytes]:
    paths = [*below.glob("jobledger/v1/*_pb2*"), *below.glob("buf/validate/*_pb2*"), below / DESCRIPTORS]
    return {str(path.relative_to(below)): path.read_bytes() for path in paths if path.is_file()}


def differences(out: Path) -> list[str]:
    fresh, committed = generated(out), generated(PYTHON)
    return sorted(name for name in fresh.keys() | committed.keys() if fresh.get(name) != committed.get(name))


def report(stale: list[str]) -> int:
    for name in stale:
        print(f"not fresh: clients/python/{name}", file=sys.stderr)
    if stale:
        print("run `make generate` and commit what it writes", file=sys.stderr)
    return 1 if stale else 0


def install(out: Path) -> None:
    for name in differences(out):
        target = PYTHON / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (out / name).exists():
            shutil.copyfile(out / name, target)
        else:
            target.unlink()
        print(f"wrote clients/python/{name}")


if __name__ == "__main__":
    sys.exit(main())
