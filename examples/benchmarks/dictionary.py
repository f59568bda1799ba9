"""Many small files with a dictionary: cramzip, and zstd with a dictionary that it trained on the same sample.

Records and lines come from this machine: what dpkg knows of its packages, as JSON, and its log. Each is a file of its
own; none of them is in the sample. Every file is decoded and compared. The last line of the output is JSON.
"""

import argparse
import json
import platform
import random
import subprocess
from importlib.metadata import version
from pathlib import Path

import zstandard

import cramzip

FIELDS = ("Package", "Version", "Architecture", "Section", "Installed-Size", "Priority", "Maintainer", "binary:Summary")
LOG = Path("/var/log/dpkg.log")


def packages():
    """A record for each package, in an order of chance."""
    wanted = "\t".join(f"${{{field}}}" for field in FIELDS) + "\n"
    command = ["dpkg-query", "-W", "-f", wanted]
    lines = subprocess.run(command, capture_output=True, check=True, text=True).stdout.splitlines()
    names = [field.lower().removeprefix("binary:").replace("-", "_") for field in FIELDS]
    found = [json.dumps(dict(zip(names, line.split("\t"), strict=True))).encode() + b"\n" for line in lines]
    random.Random(0).shuffle(found)
    return found


def split(parts, n_files, n_sample, each=1):
    """-> files of `each` parts out of the last ones, in an order of chance, and about `n_sample` bytes before these."""
    last = parts[-max(n_files * each, len(parts) // 3) :]
    starts = random.Random(1).sample(range(len(last) - each + 1), n_files)
    files = [b"".join(last[start : start + each]) for start in starts]
    sample, size = [], 0
    for part in reversed(parts[: -len(last)]):
        if size + len(part) > n_sample:
            break
        sample.insert(0, part)
        size += len(part)
    return files, sample


def kinds(n_files, n_sample):
    records, lines = packages(), LOG.read_bytes().splitlines(keepends=True)
    yield "JSON records", *split(records, n_files, n_sample)
    yield "log lines", *split(lines, n_files, n_sample)
    yield "log, three lines", *split(lines, n_files, n_sample, each=3)


def cramzip_sizes(files, dictionary):
    """`compress` decodes what it has made, and compares."""
    return [len(cramzip.compress(file, strip=True, dictionary=dictionary)) for file in files]


def zstd_sizes(files, dictionary, **fields):
    packer = zstandard.ZstdCompressor(level=19, dict_data=dictionary, **fields)
    blobs = [packer.compress(file) for file in files]
    reader = zstandard.ZstdDecompressor(dict_data=dictionary)
    assert [reader.decompress(blob, max_output_size=2**20) for blob in blobs] == files
    return list(map(len, blobs))


def trained(sample):
    """What zstd trains, of the size with which it is smallest on the sample itself."""
    total = sum(map(len, sample))
    made = [zstandard.train_dictionary(total // part, sample, level=19) for part in (2, 3, 5, 10, 20)]
    return min(made, key=lambda one: sum(zstd_sizes(sample[::10], one)))


def measured(kind, files, sample):
    whole = b"".join(sample)
    small, plain = cramzip_sizes(files, whole), cramzip_sizes(files, None)
    short = {"write_content_size": False, "write_dict_id": False}
    by_training, raw = trained(sample), zstandard.ZstdCompressionDict(whole, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    sizes = {
        "original": list(map(len, files)),
        "cramzip": plain,
        "cramzip -D": small,
        "zstd": zstd_sizes(files, None),
        "zstd, trained": zstd_sizes(files, by_training),
        "zstd, trained, nothing optional": zstd_sizes(files, by_training, **short),
        "zstd, the sample itself, nothing optional": zstd_sizes(files, raw, **short),
    }
    return {
        "kind": kind,
        "files": len(files),
        "sample_bytes": len(whole),
        "trained_bytes": len(by_training.as_bytes()),
        "mean_bytes": {name: round(sum(found) / len(found), 2) for name, found in sizes.items()},
        "share_of_without": round(sum(small) / sum(plain), 4),
    }


def main():
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--files", type=int, default=100, help="files of each kind (default: 100)")
    made.add_argument("--sample", type=int, default=60_000, help="bytes of the sample (default: 60,000)")
    arguments = made.parse_args()
    found = []
    for kind, files, sample in kinds(arguments.files, arguments.sample):
        found.append(measured(kind, files, sample))
        one = found[-1]
        print(f"{kind}, {one['files']} files, sample of {one['sample_bytes']:,} bytes; mean bytes of a file:")
        for name, size in one["mean_bytes"].items():
            print(f"  {size:8.2f}  {name}")
        print(f"  with the dictionary {one['share_of_without']:.1%} of the bytes without it", flush=True)
    versions = {"cramzip": cramzip.__version__, "zstandard": version("zstandard"), "zstd": zstandard.ZSTD_VERSION}
    print(json.dumps({"versions": versions, "machine": platform.machine(), "kinds": found}))


if __name__ == "__main__":
    main()
