{{- define "lockstep.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* 40 characters leave room for what is put behind. */}}
{{- define "lockstep.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "lockstep.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "lockstep.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* What never changes, for selectors. */}}
{{- define "lockstep.selector" -}}
app.kubernetes.io/name: {{ include "lockstep.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "lockstep.labels" -}}
{{ include "lockstep.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "lockstep.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}

{{- define "lockstep.publicUrl" -}}
{{- if .Values.config.publicUrl -}}
{{ .Values.config.publicUrl }}
{{- else if and .Values.ingress.enabled .Values.ingress.hosts -}}
{{ printf "%s://%s" (ternary "https" "http" (not (empty .Values.ingress.tls))) (first .Values.ingress.hosts) }}
{{- end -}}
{{- end -}}

{{/* Whether this release keeps secrets of its own, given as values. */}}
{{- define "lockstep.inline" -}}
{{- if or .Values.database.appUrl .Values.redis.url .Values.encryptionKey.value .Values.operatorKey.value -}}yes{{- end -}}
{{- end -}}

{{- define "lockstep.inlineData" -}}
{{- with .Values.database.appUrl }}
app-url: {{ . | quote }}
{{- end }}
{{- with .Values.database.systemUrl }}
system-url: {{ . | quote }}
{{- end }}
{{- with .Values.database.directUrl }}
direct-url: {{ . | quote }}
{{- end }}
{{- with .Values.redis.url }}
redis-url: {{ . | quote }}
{{- end }}
{{- with .Values.encryptionKey.value }}
encryption-key: {{ . | quote }}
{{- end }}
{{- with .Values.operatorKey.value }}
operator-key: {{ . | quote }}
{{- end }}
{{- end -}}
