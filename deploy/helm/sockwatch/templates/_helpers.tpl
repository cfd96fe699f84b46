{{- define "sockwatch.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" -}}
{{- end }}

{{- define "sockwatch.fullname" -}}
{{- $name := include "sockwatch.name" . -}}
{{- if contains $name .Release.Name -}}
{{- $name = .Release.Name -}}
{{- else -}}
{{- $name = printf "%s-%s" .Release.Name $name -}}
{{- end -}}
{{- .Values.fullnameOverride | default $name | trunc 63 | trimSuffix "-" -}}
{{- end }}

{{- define "sockwatch.selectorLabels" -}}
app.kubernetes.io/name: {{ include "sockwatch.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "sockwatch.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | replace "+" "_" | quote }}
{{ include "sockwatch.selectorLabels" . }}
{{- end }}

{{- define "sockwatch.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (ternary (include "sockwatch.fullname" .) "default" .Values.serviceAccount.create) -}}
{{- end }}

{{- define "sockwatch.image" -}}
{{- $image := .Values.image -}}
{{- $registry := required "image.registry: name the registry that holds the image, as in --set image.registry=registry.example.org (docs/kubernetes.md says how it gets there)" $image.registry -}}
{{- printf "%s/%s" $registry $image.repository -}}
{{- if $image.digest -}}@{{ $image.digest }}{{- else -}}:{{ $image.tag | default .Chart.AppVersion }}{{- end -}}
{{- end }}

{{- /* The probes. A kubelet has neither password nor client certificate. */ -}}
{{- define "sockwatch.probe" -}}
{{- if .root.Values.webConfig.secretName -}}
tcpSocket:
  port: {{ .root.Values.service.portName }}
{{- else -}}
httpGet:
  path: {{ .path }}
  port: {{ .root.Values.service.portName }}
{{- end }}
{{- end }}
