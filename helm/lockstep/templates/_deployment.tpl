{{/* The Deployment of one role; takes root, role, and whether something else sets its replicas. */}}
{{- define "lockstep.deployment" -}}
{{- $ := .root -}}
{{- $role := .role -}}
{{- $set := index $.Values $role -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ include "lockstep.fullname" $ }}-{{ $role }}
  labels:
    {{- include "lockstep.labels" $ | nindent 4 }}
    app.kubernetes.io/component: {{ $role }}
spec:
  {{- if not .scaled }}
  replicas: {{ $set.replicas }}
  {{- end }}
  strategy:
    type: RollingUpdate
    rollingUpdate: { maxUnavailable: 0, maxSurge: 1 }
  selector:
    matchLabels:
      {{- include "lockstep.selector" $ | nindent 6 }}
      app.kubernetes.io/component: {{ $role }}
  template:
    metadata:
      labels:
        {{- include "lockstep.labels" $ | nindent 8 }}
        app.kubernetes.io/component: {{ $role }}
        {{- with $set.podLabels }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      annotations:
        {{- if include "lockstep.inline" $ }}
        checksum/secret: {{ include "lockstep.inlineData" $ | sha256sum }}
        {{- end }}
        kubectl.kubernetes.io/default-container: lockstep
        {{- with $set.podAnnotations }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    spec:
      {{- include "lockstep.podBase" $ | nindent 6 }}
      terminationGracePeriodSeconds: {{ $set.terminationGracePeriodSeconds }}
      {{- with $set.priorityClassName }}
      priorityClassName: {{ . }}
      {{- end }}
      {{- with $set.nodeSelector }}
      nodeSelector:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $set.tolerations }}
      tolerations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $set.affinity }}
      affinity:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- if kindIs "invalid" $set.topologySpreadConstraints }}
      topologySpreadConstraints:
        {{- range $key := list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
        - topologyKey: {{ $key }}
          maxSkew: 1
          whenUnsatisfiable: ScheduleAnyway
          labelSelector:
            matchLabels:
              {{- include "lockstep.selector" $ | nindent 14 }}
              app.kubernetes.io/component: {{ $role }}
        {{- end }}
      {{- else if $set.topologySpreadConstraints }}
      topologySpreadConstraints:
        {{- toYaml $set.topologySpreadConstraints | nindent 8 }}
      {{- end }}
      containers:
        - name: lockstep
          {{- include "lockstep.container" $ | nindent 10 }}
          args: [start, --roles, {{ $role }}]
          env:
            {{- include "lockstep.env" (dict "root" $ "inline" (include "lockstep.fullname" $)) | nindent 12 }}
            - name: LOCKSTEP_DRAIN_SECONDS
              value: {{ $set.drainSeconds | default 0 | quote }}
            {{- include "lockstep.tracing" $ | nindent 12 }}
            {{- if eq $role "api" }}
            {{- if or $.Values.operatorKey.existingSecret $.Values.operatorKey.value }}
            - name: LOCKSTEP_OPERATOR_KEY
              {{ include "lockstep.secretRef" (dict "name" ($.Values.operatorKey.existingSecret | default (include "lockstep.fullname" $)) "key" (ternary $.Values.operatorKey.key "operator-key" (not (empty $.Values.operatorKey.existingSecret)))) }}
            {{- end }}
            {{- end }}
            {{- with $set.extraEnv }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
          ports:
            - { name: http, containerPort: {{ $.Values.config.port }}, protocol: TCP }
          # A minute to reach the database and the queue; after that, what does not turn its event loop is restarted.
          startupProbe:
            httpGet: { path: /livez, port: http }
            periodSeconds: 2
            failureThreshold: 30
          livenessProbe:
            httpGet: { path: /livez, port: http }
            periodSeconds: 10
            timeoutSeconds: 5
            failureThreshold: 6
          readinessProbe:
            httpGet: { path: /readyz, port: http }
            periodSeconds: 5
            timeoutSeconds: 4
            failureThreshold: 2
          resources:
            {{- toYaml $set.resources | nindent 12 }}
      {{- include "lockstep.volumes" $ | nindent 6 }}
{{- end -}}
