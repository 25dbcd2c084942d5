# mvf and JupyterLab on a CPU; the output ends with the link to open:
#   docker build -t mvf .
#   docker run --rm -p 127.0.0.1:8888:8888 -v "$HOME/clips:/clips" -v mvf-runs:/home/mvf/mvf/runs -v mvf-cache:/home/mvf/.cache mvf
# In a shell of it, `docker run --rm -it mvf bash`, every target of the Makefile works.
FROM python:3.12-slim

RUN apt-get update \
    && apt-get install --yes --no-install-recommends git make \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --shell /bin/bash mvf

USER mvf
WORKDIR /home/mvf/mvf
ENV VENV=/home/mvf/venv PATH=/home/mvf/venv/bin:$PATH PIP_NO_CACHE_DIR=1

# torch and torchvision from one place, without CUDA; the rest beside them
RUN python -m venv "$VENV" && pip install torch torchvision --index-url https://download.pytorch.org/whl/cpu
COPY --chown=mvf . .
RUN make "$VENV/installed" && mkdir -p runs /home/mvf/.cache

ENV JUPYTER_CONFIG_PATH=/home/mvf/mvf/notebooks/jupyter
EXPOSE 8888
CMD ["jupyter", "lab", "--ip=0.0.0.0", "--no-browser"]
