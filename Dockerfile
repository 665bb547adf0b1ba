# One image for operator, agent and tortiectl. `make image` puts its content together first, so that the build needs no network
# where the base has what is needed: Python 3.11, nft and BIRD. The default base has neither of the latter, which are fetched
# from Debian; that of BASE=debian has them, and is built upon without network.
ARG BASE=docker.io/library/python:3.11-slim-bookworm
FROM ${BASE}
RUN { command -v nft && command -v bird; } >/dev/null \
    || { apt-get update -qq && apt-get install -y -qq --no-install-recommends nftables bird2 && rm -rf /var/lib/apt/lists/*; }
COPY build/image/ /
ENV PYTHONPATH=/opt/tortie/lib PATH=/opt/tortie/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
# The operator needs nothing else; the chart makes the agent root, with the capabilities that it names.
USER 65532:65532
ENTRYPOINT ["tortie"]
