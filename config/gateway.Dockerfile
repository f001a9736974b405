# The OpenClaw gateway for compose.yaml, from npm. Its settings are copied into the volume when that
# is new; from then on they live there.
FROM docker.io/library/node:26-bookworm
RUN npm install --global openclaw@2026.9.6
USER node
RUN mkdir /home/node/.openclaw
COPY --chown=node:node gateway.json /home/node/.openclaw/openclaw.json
EXPOSE 3001
CMD ["openclaw", "gateway", "run"]
