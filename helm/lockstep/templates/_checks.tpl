{{/* What a schema cannot say: stops with words before anything is made. */}}
{{- define "lockstep.check" -}}
{{- $db := .Values.database -}}
{{- if $db.existingSecret -}}
{{- if or $db.appUrl $db.systemUrl $db.ownerUrl $db.directUrl -}}
{{- fail "\n\ndatabase.existingSecret and database.*Url are both set. Keep the Secret, and unset the URLs." -}}
{{- end -}}
{{- else if not (and $db.appUrl $db.systemUrl $db.ownerUrl) -}}
{{- fail "\n\nLockstep needs a PostgreSQL with three roles. Set database.existingSecret to a Secret with the keys app-url, system-url and owner-url (database.keys names others); for a trial set database.appUrl, systemUrl and ownerUrl." -}}
{{- end -}}
{{- if and .Values.encryptionKey.existingSecret .Values.encryptionKey.value -}}
{{- fail "\n\nencryptionKey.existingSecret and encryptionKey.value are both set. Keep the Secret, and unset the value." -}}
{{- end -}}
{{- if not (or .Values.encryptionKey.existingSecret .Values.encryptionKey.value) -}}
{{- fail "\n\nLockstep needs an encryption key. Make one with `openssl rand -base64 32`, put it into a Secret under encryption-key, and set encryptionKey.existingSecret." -}}
{{- end -}}
{{- if and .Values.redis.existingSecret .Values.redis.url -}}
{{- fail "\n\nredis.existingSecret and redis.url are both set. Keep the Secret, and unset the URL." -}}
{{- end -}}
{{- if and .Values.operatorKey.existingSecret .Values.operatorKey.value -}}
{{- fail "\n\noperatorKey.existingSecret and operatorKey.value are both set. Keep the Secret, and unset the value." -}}
{{- end -}}
{{- if and .Values.worker.hpa.enabled .Values.worker.keda.enabled -}}
{{- fail "\n\nworker.hpa and worker.keda are both enabled: two autoscalers would pull at one Deployment. Enable one of them." -}}
{{- end -}}
{{- if and .Values.worker.keda.enabled (not .Values.worker.keda.serverAddress) -}}
{{- fail "\n\nworker.keda needs worker.keda.serverAddress: where KEDA asks Prometheus, for example http://prometheus-operated.monitoring:9090." -}}
{{- end -}}
{{- range $role := list "api" "worker" -}}
{{- $hpa := (index $.Values $role).hpa -}}
{{- if and $hpa.enabled (gt (int $hpa.minReplicas) (int $hpa.maxReplicas)) -}}
{{- fail (printf "\n\n%s.hpa.minReplicas is above %s.hpa.maxReplicas." $role $role) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.ingress.enabled (not .Values.ingress.hosts) -}}
{{- fail "\n\ningress is enabled without ingress.hosts. Name the host under which identity providers reach Lockstep." -}}
{{- end -}}
{{- if and .Values.tracing.headers.existingSecret (not .Values.tracing.endpoint) -}}
{{- fail "\n\ntracing.headers is set without tracing.endpoint. Say where traces go, for example http://collector.observability:4318." -}}
{{- end -}}
{{- range .Values.config.extraEnv -}}
{{- if and (hasKey . "value") (regexMatch "^LOCKSTEP_(.*DATABASE_URL|REDIS_URL|OPERATOR_KEY|ENCRYPTION_KEY|DECRYPTION_KEYS)$" .name) -}}
{{- fail (printf "\n\n%s is a secret and does not belong into extraEnv as a value. Use the chart's own setting for it." .name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
