# The attend server and client on Debian 12 slim. Build with `make image`, or: docker build -t attend .
#
#   docker run --read-only --cap-drop ALL -p 50051:50051 attend --threads 4
#
# The run-time libraries come from Debian's packages, not from the build stage, so that scanners see them and a rebuild
# brings their security fixes. Nothing at run time needs a shell, a writable root file system or a name for the user.

ARG BASE=docker.io/library/debian:bookworm-slim

FROM ${BASE} AS build
WORKDIR /src
# As in the Makefile, so that a compiler cache mounted on /root/.cache/ccache has this build's objects already.
ENV CCACHE_BASEDIR=/src CCACHE_NOHASHDIR=1 CCACHE_COMPILERCHECK=content
COPY scripts/install-dependencies.sh scripts/
RUN scripts/install-dependencies.sh build
COPY CMakeLists.txt CMakePresets.json ./
COPY cmake cmake
COPY proto proto
COPY formats formats
COPY core core
COPY server server
COPY client client
COPY examples/data/x.npy examples/data/
RUN cmake --preset release -DATTEND_BUILD_TESTS=OFF -DCMAKE_INSTALL_PREFIX=/usr/local \
    && cmake --build --preset release --target attend-server attend \
    && for component in server client; do \
        DESTDIR=/out cmake --install build/release --component $component --strip || exit 1; \
    done \
    && rm -rf /out/usr/local/share

FROM ${BASE}
# Of the fonts pictures use one family, nothing calls Cairo's X11 back end, and of gRPC's variants nothing calls the one
# without TLS, channelz or code generators.
RUN apt-get update -qq \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        fonts-dejavu-core libabsl20220623 libcairo2 libgrpc++1.51 libhwy1 libprometheus-cpp-core1.0 libprotobuf32 \
        libspdlog1.10 \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/debconf/* /var/cache/ldconfig/* /var/log/* \
        /var/lib/dpkg/*-old \
    && find /usr/share/doc -type f ! -name copyright -delete \
    && find /usr/share/fonts/truetype/dejavu -type f ! -name 'DejaVuSans*' -delete \
    && rm -rf /usr/share/fonts/truetype/dejavu/DejaVuSansMono*.ttf /usr/share/X11/locale \
        /usr/lib/*/libgrpc_unsecure.so.* /usr/lib/*/libgrpc++_unsecure.so.* /usr/lib/*/libgrpcpp_channelz.so.* \
        /usr/lib/*/libgrpc_plugin_support.so.* /usr/lib/*/libgrpc++_reflection.so.*
COPY --from=build /out/ /
# A volume mounted here takes this owner over, so that --data-dir /var/lib/attend/layers can be made in it.
RUN install -d -o 65532 -g 65532 /var/lib/attend
# A library that the binaries need and the line above does not bring is an error now, not when a container starts.
RUN ["/usr/local/bin/attend-server", "--check-config"]
RUN ["/usr/local/bin/attend", "--version"]

ARG VERSION=0.2.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="attend" \
      org.opencontainers.image.description="Attention as a service: transformer attention over gRPC" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
EXPOSE 50051
STOPSIGNAL SIGTERM
USER 65532:65532
# A container's own loopback would reach nobody. Plaintext on it is refused until ATTEND_INSECURE=true says that the network
# is trusted, or ATTEND_TLS_CERT and ATTEND_TLS_KEY give it TLS.
ENV ATTEND_LISTEN=0.0.0.0:50051
# The client reads ATTEND_ENDPOINTS, ATTEND_TLS_CA and, where the server asks for client certificates,
# ATTEND_CLIENT_TLS_CERT and ATTEND_CLIENT_TLS_KEY: set them when the server listens elsewhere or speaks TLS.
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s --retries=3 CMD ["/usr/local/bin/attend", "health"]
ENTRYPOINT ["/usr/local/bin/attend-server"]
