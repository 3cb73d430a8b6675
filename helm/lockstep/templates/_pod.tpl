{{- define "lockstep.secretRef" -}}
valueFrom: { secretKeyRef: { name: {{ .name | quote }}, key: {{ .key | quote }} } }
{{- end -}}

{{/* The environment that all processes share. `inline`: name of the Secret of this release; `owner`: for a migration. */}}
{{- define "lockstep.env" -}}
{{- $ := .root -}}
{{- $db := $.Values.database -}}
{{- $secret := $db.existingSecret | default .inline -}}
{{- $key := dict "app" "app-url" "system" "system-url" "owner" "owner-url" "direct" (ternary "direct-url" "" (not (empty $db.directUrl))) -}}
{{- if $db.existingSecret }}{{ $key = $db.keys }}{{ end -}}
- name: LOCKSTEP_DATABASE_URL
  {{ include "lockstep.secretRef" (dict "name" $secret "key" $key.app) }}
- name: LOCKSTEP_SYSTEM_DATABASE_URL
  {{ include "lockstep.secretRef" (dict "name" $secret "key" $key.system) }}
{{- if .owner }}
- name: LOCKSTEP_OWNER_DATABASE_URL
  {{ include "lockstep.secretRef" (dict "name" $secret "key" $key.owner) }}
{{- else }}
{{- with $key.direct }}
- name: LOCKSTEP_DIRECT_DATABASE_URL
  {{ include "lockstep.secretRef" (dict "name" $secret "key" .) }}
{{- end }}
{{- if not (kindIs "invalid" $db.pooler) }}
- name: LOCKSTEP_DATABASE_POOLER
  value: {{ ternary "1" "0" $db.pooler | quote }}
{{- end }}
{{- if or $.Values.redis.existingSecret $.Values.redis.url }}
- name: LOCKSTEP_REDIS_URL
  {{ include "lockstep.secretRef" (dict "name" ($.Values.redis.existingSecret | default .inline) "key" (ternary $.Values.redis.key "redis-url" (not (empty $.Values.redis.existingSecret)))) }}
{{- end }}
- name: LOCKSTEP_ENCRYPTION_KEY
  {{ include "lockstep.secretRef" (dict "name" ($.Values.encryptionKey.existingSecret | default .inline) "key" (ternary $.Values.encryptionKey.key "encryption-key" (not (empty $.Values.encryptionKey.existingSecret)))) }}
{{- with $.Values.decryptionKeys }}
{{- if .existingSecret }}
- name: LOCKSTEP_DECRYPTION_KEYS
  {{ include "lockstep.secretRef" (dict "name" .existingSecret "key" .key) }}
{{- end }}
{{- end }}
- name: LOCKSTEP_HOST
  value: {{ $.Values.config.host | quote }}
- name: LOCKSTEP_PORT
  value: {{ $.Values.config.port | quote }}
{{- with include "lockstep.publicUrl" $ }}
- name: LOCKSTEP_PUBLIC_URL
  value: {{ . | quote }}
{{- end }}
- name: LOCKSTEP_TRUST_PROXY
  value: {{ ternary "1" "0" (ternary $.Values.ingress.enabled $.Values.config.trustProxy (kindIs "invalid" $.Values.config.trustProxy)) | quote }}
- name: LOCKSTEP_CHANGE_RETENTION_DAYS
  value: {{ $.Values.config.changeRetentionDays | quote }}
- name: LOCKSTEP_REQUEST_RETENTION_DAYS
  value: {{ $.Values.config.requestRetentionDays | quote }}
- name: LOCKSTEP_SCIM_REQUESTS_PER_SECOND
  value: {{ $.Values.config.scimRequestsPerSecond | quote }}
{{- with $.Values.config.dnsServers }}
- name: LOCKSTEP_DNS_SERVERS
  value: {{ join "," . | quote }}
{{- end }}
{{- end }}
- name: LOCKSTEP_LOG_LEVEL
  value: {{ $.Values.config.logLevel | quote }}
{{- with $.Values.config.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Of the three roles; a migration is not traced. */}}
{{- define "lockstep.tracing" -}}
{{- with .Values.tracing -}}
{{- if .endpoint -}}
- name: OTEL_EXPORTER_OTLP_ENDPOINT
  value: {{ .endpoint | quote }}
- name: OTEL_TRACES_SAMPLER
  value: {{ .sampler | quote }}
{{- with .samplerArg }}
- name: OTEL_TRACES_SAMPLER_ARG
  value: {{ . | quote }}
{{- end }}
{{- if .headers.existingSecret }}
- name: OTEL_EXPORTER_OTLP_HEADERS
  {{ include "lockstep.secretRef" (dict "name" .headers.existingSecret "key" .headers.key) }}
{{- end }}
{{- with .resourceAttributes }}
{{- $pairs := list }}
{{- range $name, $value := . }}
{{- $pairs = append $pairs (printf "%s=%s" $name ($value | toString | urlquery | replace "+" "%20")) }}
{{- end }}
- name: OTEL_RESOURCE_ATTRIBUTES
  value: {{ join "," $pairs | quote }}
{{- end }}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "lockstep.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: { drop: [ALL] }
{{- end -}}

{{/* Of every pod, the migration's and the test's included. Service links are off: a Service named "lockstep" would set
     LOCKSTEP_PORT to tcp://…, and Lockstep would refuse to start. */}}
{{- define "lockstep.podBase" -}}
enableServiceLinks: false
automountServiceAccountToken: false
{{- with .Values.serviceAccountName }}
serviceAccountName: {{ . }}
{{- end }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- end -}}

{{- define "lockstep.container" -}}
image: {{ include "lockstep.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  {{- include "lockstep.containerSecurity" . | nindent 2 }}
volumeMounts:
  - { name: tmp, mountPath: /tmp }
{{- end -}}

{{- define "lockstep.volumes" -}}
volumes:
  - { name: tmp, emptyDir: { sizeLimit: 64Mi } }
{{- end -}}
