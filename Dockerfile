# The image that SageMaker trains and serves with, and docker on any machine:
#
#   docker build -t fm .
#   docker run --rm -v "$PWD/ml:/opt/ml" fm train        container/README.md shows what is in ml/
#   docker run --rm -p 8080:8080 -v "$PWD/model:/opt/ml/model:ro" fm serve
#
# Another base image needs Python 3.10 or newer in /usr/local, and a shell.
ARG BASE_IMAGE=python:3.11-slim-bookworm

# -- what goes into the image --------------------------------------------------------------------
FROM ${BASE_IMAGE} AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends binutils
WORKDIR /source
COPY pyproject.toml ./
# The packages are a layer of their own, made again only when pyproject.toml changes. The container
# offers no estimators, so it needs no scikit-learn.
RUN python -c "import tomllib; project = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
print(*(d for d in project['dependencies'] if not d.startswith('scikit-learn')), sep='\n')" \
    > requirements.txt \
 && pip install --no-cache-dir --prefix=/install -r requirements.txt
# A third of all bytes is of no use in here: the packages' own tests, headers and libraries to link
# with, symbols for debuggers (not stripped: libraries that the wheels' tools have patched, which
# would not load any more), pyarrow's access to remote storage, and the parts of scipy that nothing
# imports (tests/test_container_image.py compares them with what fm imports).
RUN cd /install/lib/python3*/site-packages \
 && find . -type d -name tests -prune -exec rm -rf {} + \
 && rm -rf pyarrow/include pyarrow/includes pyarrow/src pyarrow/*.p[xy][xid] \
           pyarrow/*flight* pyarrow/*s3* pyarrow/*.so.*.*.* \
 && strip llvmlite/binding/*.so pyarrow/*.so pyarrow/*.so.* \
 && cd scipy \
 && rm -rf cluster datasets fftpack integrate interpolate io ndimage odr optimize signal spatial stats
COPY . .
RUN pip install --no-cache-dir --no-deps --prefix=/install . \
 && install -m 755 container/entrypoint /install/bin/entrypoint \
 && install -m 755 container/entrypoint /install/bin/train \
 && install -m 755 container/entrypoint /install/bin/serve

# -- what every program in the image finds -------------------------------------------------------
FROM ${BASE_IMAGE} AS runtime
COPY --from=build /install /usr/local
# Compiled kernels are kept where a container may write at most; elsewhere each process compiles.
ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    NUMBA_CACHE_DIR=/tmp/fm-kernels

# -- kernels that most jobs need, compiled (in the place where they will be used) ------------------
FROM runtime AS kernels
RUN python -m container.kernels /kernels

# -- the image -----------------------------------------------------------------------------------
FROM runtime
LABEL com.amazonaws.sagemaker.capabilities.accept-bind-to-port=true \
      com.amazonaws.sagemaker.capabilities.multi-models=true
COPY --from=kernels /kernels /usr/local/share/fm/kernels
EXPOSE 8080
ENTRYPOINT ["/usr/local/bin/entrypoint"]
CMD ["train"]
