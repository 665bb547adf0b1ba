{{- /* What operator and agent find the API server by, where kube-proxy can't be relied on. */ -}}
{{- define "tortie.env" -}}
{{- with .Values.apiServer.host }}
- {name: KUBERNETES_SERVICE_HOST, value: {{ . | quote }}}
- {name: KUBERNETES_SERVICE_PORT, value: {{ $.Values.apiServer.port | quote }}}
{{- end }}
{{- end }}

{{- /* The image by its digest, where there is one, which nobody can move to another image. */ -}}
{{- define "tortie.image" -}}
{{- $said := .Values.image -}}
{{ $said.repository }}{{ with $said.digest }}@{{ . }}{{ else }}:{{ $said.tag | default .Chart.AppVersion }}{{ end }}
{{- end }}
