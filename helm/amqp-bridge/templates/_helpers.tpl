{{- define "amqp-bridge.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "amqp-bridge.fullname" -}}
{{- $name := include "amqp-bridge.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name }}
{{- end }}
{{- end }}

{{- define "amqp-bridge.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- .Values.serviceAccount.name | default (include "amqp-bridge.fullname" .) }}
{{- else }}
{{- .Values.serviceAccount.name | default "default" }}
{{- end }}
{{- end }}

{{- define "amqp-bridge.image" -}}
{{- $registry := .Values.global.imageRegistry | default .Values.image.registry }}
{{- with .Values.image }}
{{- with $registry }}{{ trimSuffix "/" . }}/{{ end }}
{{- if .digest }}
{{- printf "%s@%s" .repository .digest }}
{{- else }}
{{- printf "%s:%s" .repository (.tag | default $.Chart.AppVersion) }}
{{- end }}
{{- end }}
{{- end }}

{{- define "amqp-bridge.pullSecrets" -}}
{{- $names := list }}
{{- range concat (.Values.global.imagePullSecrets | default list) .Values.imagePullSecrets }}
{{- $names = append $names (dict "name" (kindIs "map" . | ternary (get (kindIs "map" . | ternary . dict) "name") .)) }}
{{- end }}
{{- with $names | uniq }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "amqp-bridge.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 }}
app.kubernetes.io/name: {{ include "amqp-bridge.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* The annotations of an object, with their key. Takes a list: the chart's context, then mappings; later ones win. */}}
{{- define "amqp-bridge.annotations" -}}
{{- $all := deepCopy (first .).Values.commonAnnotations }}
{{- range rest . }}
{{- $all = mergeOverwrite $all (. | default dict) }}
{{- end }}
{{- with $all }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* The bridges that are enabled, by name, as JSON: the values of each over the defaults. */}}
{{- define "amqp-bridge.bridges" -}}
{{- $found := dict }}
{{- range $name, $own := .Values.bridges }}
{{- $bridge := mergeOverwrite (deepCopy $.Values.defaults) ($own | default dict) }}
{{- if $bridge.enabled }}
{{- $_ := set $found $name $bridge }}
{{- end }}
{{- end }}
{{- toJson $found }}
{{- end }}

{{/*
What follows takes one bridge: a dict of "root" (the chart's context), "name" and "bridge" (its values over the
defaults).
*/}}

{{- define "amqp-bridge.objectName" -}}
{{- $name := printf "%s-%s" (include "amqp-bridge.fullname" .root) .name }}
{{- if gt (len $name) 63 }}
{{- fail (printf "bridges.%s: the object name %q has more than 63 characters; choose shorter names, or set fullnameOverride" .name $name) }}
{{- end }}
{{- $name }}
{{- end }}

{{- define "amqp-bridge.selector" -}}
app.kubernetes.io/name: {{ include "amqp-bridge.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .name }}
{{- end }}

{{- define "amqp-bridge.metadata" -}}
name: {{ include "amqp-bridge.objectName" . }}
labels:
  {{- include "amqp-bridge.bridgeLabels" . | nindent 2 }}
{{- with include "amqp-bridge.annotations" (list .root .bridge.annotations) | trim }}
{{ . }}
{{- end }}
{{- end }}

{{- define "amqp-bridge.bridgeLabels" -}}
{{ include "amqp-bridge.labels" .root }}
app.kubernetes.io/component: {{ .name }}
{{- end }}

{{/* A setting as the text that the service reads; YAML's large numbers arrive as floats. */}}
{{- define "amqp-bridge.text" -}}
{{- if kindIs "map" . }}
{{- toJson . }}
{{- else if and (kindIs "slice" .) (kindIs "map" (first .)) }}
{{- toJson . }}
{{- else if kindIs "slice" . }}
{{- join "," . }}
{{- else if and (kindIs "float64" .) (eq (floor .) .) }}
{{- int64 . }}
{{- else }}
{{- toString . }}
{{- end }}
{{- end }}

{{- define "amqp-bridge.config" -}}
{{- range $setting, $value := .bridge.settings }}
{{- if not (kindIs "invalid" $value) }}
BRIDGE_{{ $setting | snakecase | upper }}: {{ include "amqp-bridge.text" $value | quote }}
{{- end }}
{{- end }}
{{- end }}

{{/* What the chart's own Secret for this bridge holds; empty when there is nothing to hold. */}}
{{- define "amqp-bridge.secret" -}}
{{- range $side := list "source" "destination" }}
{{- with index $.bridge $side }}
{{- if not .existingSecret }}
{{- range $key := list "url" "username" "password" }}
{{- with index (index $.bridge $side) $key }}
{{ $side }}-{{ $key }}: {{ toString . | quote }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- with .bridge.keda }}
{{- if and .enabled .host }}
keda-host: {{ .host | quote }}
{{- end }}
{{- end }}
{{- end }}

{{/* The Secret's keys of one side, as JSON, an absent one empty. Takes a dict of "side" and its values as "given". */}}
{{- define "amqp-bridge.keys" -}}
{{- $keys := dict }}
{{- if and .given.existingSecret .given.keys.url }}
{{- $keys = .given.keys }}
{{- else if .given.existingSecret }}
{{- $keys = dict "username" (.given.keys.username | default "username") "password" (.given.keys.password | default "password") }}
{{- else }}
{{- range $key := list "url" "username" "password" }}
{{- if index $.given $key }}
{{- $_ := set $keys $key (printf "%s-%s" $.side $key) }}
{{- end }}
{{- end }}
{{- end }}
{{- toJson $keys }}
{{- end }}

{{- define "amqp-bridge.env" -}}
{{- range $side := list "source" "destination" }}
{{- $given := index $.bridge $side }}
{{- $keys := include "amqp-bridge.keys" (dict "side" $side "given" $given) | fromJson }}
{{- $secret := $given.existingSecret | default (include "amqp-bridge.objectName" $) }}
{{- $prefix := printf "BRIDGE_%s" (upper $side) }}
{{- range $key := list "url" "username" }}
{{- with index $keys $key }}
- name: {{ $prefix }}_{{ upper $key }}
  valueFrom:
    secretKeyRef:
      name: {{ $secret }}
      key: {{ . }}
{{- end }}
{{- end }}
{{- if $keys.password }}
- name: {{ $prefix }}_PASSWORD_FILE
  value: /etc/amqp-bridge/{{ $side }}/password
{{- end }}
{{- with $given.tls }}
{{- if and .secret .ca }}
- name: {{ $prefix }}_CA_FILE
  value: /etc/amqp-bridge/{{ $side }}-tls/{{ .ca }}
{{- end }}
{{- if and .secret .clientCertificate }}
- name: {{ $prefix }}_CERT_FILE
  value: /etc/amqp-bridge/{{ $side }}-tls/tls.crt
- name: {{ $prefix }}_KEY_FILE
  value: /etc/amqp-bridge/{{ $side }}-tls/tls.key
{{- end }}
{{- end }}
{{- end }}
{{- with .bridge.http }}
{{- if .tls.secret }}
- name: BRIDGE_HTTP_CERT_FILE
  value: /etc/amqp-bridge/http-tls/tls.crt
- name: BRIDGE_HTTP_KEY_FILE
  value: /etc/amqp-bridge/http-tls/tls.key
{{- if .tls.clientCa }}
- name: BRIDGE_HTTP_CLIENT_CA_FILE
  value: /etc/amqp-bridge/http-tls/{{ .tls.clientCa }}
{{- end }}
{{- end }}
{{- if .token.secret }}
- name: BRIDGE_HTTP_TOKEN_FILE
  value: /etc/amqp-bridge/http-token/token
{{- end }}
{{- end }}
{{- with .bridge.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "amqp-bridge.volumeMounts" -}}
{{- range $side := list "source" "destination" }}
{{- $given := index $.bridge $side }}
{{- if (include "amqp-bridge.keys" (dict "side" $side "given" $given) | fromJson).password }}
- name: {{ $side }}
  mountPath: /etc/amqp-bridge/{{ $side }}
  readOnly: true
{{- end }}
{{- if $given.tls.secret }}
- name: {{ $side }}-tls
  mountPath: /etc/amqp-bridge/{{ $side }}-tls
  readOnly: true
{{- end }}
{{- end }}
{{- range $name, $secret := dict "http-tls" .bridge.http.tls.secret "http-token" .bridge.http.token.secret }}
{{- if $secret }}
- name: {{ $name }}
  mountPath: /etc/amqp-bridge/{{ $name }}
  readOnly: true
{{- end }}
{{- end }}
{{- with .bridge.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "amqp-bridge.volumes" -}}
{{- range $side := list "source" "destination" }}
{{- $given := index $.bridge $side }}
{{- $keys := include "amqp-bridge.keys" (dict "side" $side "given" $given) | fromJson }}
{{- with $keys.password }}
- name: {{ $side }}
  secret:
    secretName: {{ $given.existingSecret | default (include "amqp-bridge.objectName" $) }}
    defaultMode: 0440
    items:
      - key: {{ . }}
        path: password
{{- end }}
{{- with $given.tls.secret }}
- name: {{ $side }}-tls
  secret:
    secretName: {{ . }}
    defaultMode: 0440
{{- end }}
{{- end }}
{{- with .bridge.http.tls.secret }}
- name: http-tls
  secret:
    secretName: {{ . }}
    defaultMode: 0440
{{- end }}
{{- with .bridge.http.token }}
{{- if .secret }}
- name: http-token
  secret:
    secretName: {{ .secret }}
    defaultMode: 0440
    items:
      - key: {{ .key }}
        path: token
{{- end }}
{{- end }}
{{- with .bridge.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/*
The pod's spec, for the bridge itself and for the check. "args" and "serving" are added to the dict: what only the
bridge has, which are its probes, hooks and sidecars; empty for the check.
*/}}
{{- define "amqp-bridge.podSpec" -}}
serviceAccountName: {{ include "amqp-bridge.serviceAccountName" .root }}
automountServiceAccountToken: {{ .root.Values.serviceAccount.automountToken }}
enableServiceLinks: false
{{- with include "amqp-bridge.pullSecrets" .root | trim }}
{{ . }}
{{- end }}
{{- with .bridge.dnsPolicy }}
dnsPolicy: {{ . }}
{{- end }}
{{- with .bridge.dnsConfig }}
dnsConfig:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .bridge.hostAliases }}
hostAliases:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .bridge.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
securityContext:
  {{- toYaml .bridge.podSecurityContext | nindent 2 }}
{{- with .bridge.initContainers }}
initContainers:
  {{- toYaml . | nindent 2 }}
{{- end }}
containers:
  - name: bridge
    image: {{ include "amqp-bridge.image" .root }}
    imagePullPolicy: {{ .root.Values.image.pullPolicy }}
    args: {{ toJson .args }}
    securityContext:
      {{- toYaml .bridge.securityContext | nindent 6 }}
    envFrom:
      {{- with .bridge.extraEnvFrom }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
      - configMapRef:
          name: {{ include "amqp-bridge.objectName" . }}
    {{- with include "amqp-bridge.env" . | trim }}
    env:
      {{- . | nindent 6 }}
    {{- end }}
    {{- with .serving }}
    {{- . | nindent 4 }}
    {{- end }}
    resources:
      {{- toYaml .bridge.resources | nindent 6 }}
    {{- with include "amqp-bridge.volumeMounts" . | trim }}
    volumeMounts:
      {{- . | nindent 6 }}
    {{- end }}
{{- if .serving }}
{{- with .bridge.sidecars }}
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- with include "amqp-bridge.volumes" . | trim }}
volumes:
  {{- . | nindent 2 }}
{{- end }}
{{- with .bridge.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .bridge.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .bridge.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "amqp-bridge.httpPort" -}}
{{- .bridge.settings.httpPort | default 8080 | int }}
{{- end }}

{{/* Whether HTTP is served over TLS: by a Secret, or by a file of the operator's own. */}}
{{- define "amqp-bridge.httpTls" -}}
{{- if or .bridge.http.tls.secret .bridge.settings.httpCertFile }}yes{{ end }}
{{- end }}

{{/* Whether metrics, status and page want something; the Prometheus operator can show the token of a Secret alone. */}}
{{- define "amqp-bridge.httpLogin" -}}
{{- if or .bridge.http.token.secret .bridge.settings.httpTokenFile .bridge.http.tls.clientCa .bridge.settings.httpClientCaFile }}yes{{ end }}
{{- end }}

{{/*
How a monitor of the Prometheus operator asks the bridges, which all serve alike (see _validate.tpl). Takes a list: the
chart's context, the monitor's values.
*/}}
{{- define "amqp-bridge.scrape" -}}
{{- with include "amqp-bridge.bridges" (first .) | fromJson | values | first }}
{{- if include "amqp-bridge.httpTls" (dict "bridge" .) }}
scheme: https
{{- end }}
{{- if .http.token.secret }}
authorization:
  credentials:
    name: {{ .http.token.secret }}
    key: {{ .http.token.key }}
{{- end }}
{{- end }}
{{- with (last .).tlsConfig }}
tlsConfig:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
