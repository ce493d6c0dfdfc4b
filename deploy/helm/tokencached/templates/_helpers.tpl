{{- define "tokencached.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "tokencached.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "tokencached.labels" -}}
{{ include "tokencached.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- /* What a schema cannot say. */}}
{{- define "tokencached.judge" -}}
{{- if not (or .Values.auth.existingSecret .Values.auth.allowUnauthenticated) }}
{{- fail "who may connect? Set auth.existingSecret (passwords), or auth.allowUnauthenticated=true if the network policy keeps strangers out" }}
{{- end }}
{{- if and .Values.networkPolicy.enabled (not .Values.networkPolicy.clientLabels) }}
{{- fail "networkPolicy.clientLabels is empty, and that would let every pod of the namespace in: name a label" }}
{{- end }}
{{- if and (not .Values.auth.existingSecret) (not .Values.networkPolicy.enabled) (ne .Values.service.type "ClusterIP") }}
{{- fail "the service can be reached from outside of the cluster, without a password and without a network policy: set auth.existingSecret, or networkPolicy.enabled=true, or service.type=ClusterIP" }}
{{- end }}
{{- if and (gt (int .Values.replicas) 1) (not .Values.redis.url) (not .Values.follow.urls) }}
{{- fail "several replicas have to share their tokens: set redis.url or follow.urls, or replicas=1" }}
{{- end }}
{{- if and .Values.redis.url .Values.follow.urls }}
{{- fail "redis.url and follow.urls exclude each other" }}
{{- end }}
{{- if and .Values.redis.url (not .Values.redis.existingSecret) }}
{{- fail "redis.existingSecret is missing: what tokens in the Redis are sealed with" }}
{{- end }}
{{- if and .Values.follow.urls (not .Values.follow.existingSecret) }}
{{- fail "follow.existingSecret is missing: the API key for the leader" }}
{{- end }}
{{- if and .Values.apps (not .Values.appSecrets) (not .Values.follow.urls) }}
{{- fail "appSecrets is missing: the Secret with the AppSecret of each of the apps" }}
{{- end }}
{{- if and .Values.serviceMonitor.enabled (not (and .Values.http.keysSecret .Values.serviceMonitor.keySecret)) }}
{{- fail "serviceMonitor needs http.keysSecret and serviceMonitor.keySecret" }}
{{- end }}
{{- end }}

{{- /* The Secrets that are mounted: the folder's name and the Secret's, as JSON. */}}
{{- define "tokencached.secrets" -}}
{{- $all := list }}
{{- range list (list "secrets" .Values.appSecrets) (list "auth" .Values.auth.existingSecret) (list "http" .Values.http.keysSecret) (list "redis" .Values.redis.existingSecret) (list "leader" .Values.follow.existingSecret) }}
{{- if index . 1 }}
{{- $all = append $all (dict "name" (index . 0) "secret" (index . 1)) }}
{{- end }}
{{- end }}
{{- toJson $all }}
{{- end }}
