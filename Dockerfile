# chexseg and all it needs, from the lock file. See docs/how-to/run-in-a-container.md.
#
#   docker build -t chexseg .                             PyTorch's CUDA build
#   docker build -t chexseg --build-arg BACKEND=cpu .     its CPU build, some 6 GB smaller
FROM python:3.11-slim-bookworm

ARG BACKEND=cuda
WORKDIR /opt/chexseg
COPY requirements.lock ./
# The hashes of the lock file are those of the default builds. For the CPU builds uv goes to
# PyTorch's index, so the versions are pinned and the hashes aren't.
RUN if [ "$BACKEND" = cuda ]; then \
        pip install --no-cache-dir --require-hashes --requirement requirements.lock; \
    else \
        pip install --no-cache-dir uv \
        && grep -vE '^(nvidia-|triton|cuda-)' requirements.lock | sed -E 's/ *\\$//; /^ *--hash/d' > pins.txt \
        && uv pip install --system --no-cache --torch-backend "$BACKEND" --requirement pins.txt \
        && rm pins.txt; \
    fi
COPY pyproject.toml README.md LICENSE ./
COPY studies ./studies
COPY chexseg ./chexseg
# /work is the user's, so that commands can write without a mounted directory too.
RUN pip install --no-cache-dir --no-deps . \
    && useradd --create-home chexseg \
    && install --directory --owner=chexseg /work

USER chexseg
WORKDIR /work
ENTRYPOINT ["chexseg"]
CMD ["--help"]
