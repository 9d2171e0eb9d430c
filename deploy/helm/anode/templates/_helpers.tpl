{{/* The name of everything: the release, with the chart's name unless it has that already. */}}
{{- define "anode.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{/* The labels by which pods are selected. They must not change. */}}
{{- define "anode.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "anode.labels" -}}
{{ include "anode.selector" . }}
app.kubernetes.io/version: {{ .Values.image.tag | default .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "anode.image" -}}
{{- if .Values.image.digest }}{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else }}{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ end }}
{{- end }}

{{/* Whether the pods need the secret. */}}
{{- define "anode.hasSecret" -}}
{{- if or .Values.secret.clusterKey .Values.secret.tls .Values.secret.auth }}yes{{ end }}
{{- end }}

{{/* The names under which clients address the nodes. */}}
{{- define "anode.hosts" -}}
{{- $name := include "anode.name" . }}
{{- $hosts := list }}
{{- range $service := list $name (printf "%s-clients" $name) }}
{{- range $suffix := list "" ".$(POD_NAMESPACE)" ".$(POD_NAMESPACE).svc" ".$(POD_NAMESPACE).svc.cluster.local" }}
{{- $hosts = append $hosts (printf "%s%s" $service $suffix) }}
{{- end }}
{{- end }}
{{- range $suffix := list "" (printf ".%s" $name) (printf ".%s.$(POD_NAMESPACE).svc.cluster.local" $name) }}
{{- $hosts = append $hosts (printf "$(ANODE_NODE_NAME)%s" $suffix) }}
{{- end }}
{{- concat $hosts .Values.allowHosts | join "," }}
{{- end }}
