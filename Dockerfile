# One image for operator, agent and tortiectl. `make image` puts its content together first, so that the build needs no network
# where the base has what is needed: Python 3.11 and nft. The default base has no nft, which is fetched from Debian; that of
# BASE=debian has it, and is built upon without network.
ARG BASE=docker.io/library/python:3.11-slim-bookworm
FROM ${BASE}
RUN command -v nft >/dev/null \
    || { apt-get update -qq && apt-get install -y -qq --no-install-recommends nftables && rm -rf /var/lib/apt/lists/*; }
COPY build/image/ /
ENV PYTHONPATH=/opt/tortie/lib PATH=/opt/tortie/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
# The operator needs nothing else; the chart makes the agent root, with the capabilities that it names.
USER 65532:65532
ENTRYPOINT ["tortie"]
