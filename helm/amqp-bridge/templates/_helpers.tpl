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
{{- with .Values.image }}
{{- if .digest }}
{{- printf "%s@%s" .repository .digest }}
{{- else }}
{{- printf "%s:%s" .repository (.tag | default $.Chart.AppVersion) }}
{{- end }}
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

{{- define "amqp-bridge.bridgeLabels" -}}
{{ include "amqp-bridge.labels" .root }}
app.kubernetes.io/component: {{ .name }}
{{- end }}

{{/* A setting as the text that the service reads; YAML's large numbers arrive as floats. */}}
{{- define "amqp-bridge.text" -}}
{{- if kindIs "map" . }}
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
{{- with .bridge.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* The pod's spec but for its probes, for the bridge itself and for the check; "args" and "probes" are added to the dict. */}}
{{- define "amqp-bridge.podSpec" -}}
serviceAccountName: {{ include "amqp-bridge.serviceAccountName" .root }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .bridge.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
securityContext:
  {{- toYaml .bridge.podSecurityContext | nindent 2 }}
containers:
  - name: bridge
    image: {{ include "amqp-bridge.image" .root }}
    imagePullPolicy: {{ .root.Values.image.pullPolicy }}
    args: {{ toJson .args }}
    securityContext:
      {{- toYaml .bridge.securityContext | nindent 6 }}
    envFrom:
      - configMapRef:
          name: {{ include "amqp-bridge.objectName" . }}
    {{- with include "amqp-bridge.env" . | trim }}
    env:
      {{- . | nindent 6 }}
    {{- end }}
    {{- with .probes }}
    {{- . | nindent 4 }}
    {{- end }}
    resources:
      {{- toYaml .bridge.resources | nindent 6 }}
    {{- with include "amqp-bridge.volumeMounts" . | trim }}
    volumeMounts:
      {{- . | nindent 6 }}
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

{{/* Whole seconds, rounded up, of a duration as the service takes it: 20, "20s", "500ms", "5m", "1h". */}}
{{- define "amqp-bridge.seconds" -}}
{{- $text := toString . }}
{{- $number := regexFind "^[0-9.]+" $text | float64 }}
{{- $unit := regexFind "[a-z]+$" $text | default "s" }}
{{- mulf $number (index (dict "ms" 0.001 "s" 1 "m" 60 "h" 3600) $unit) | ceil | int }}
{{- end }}

{{- define "amqp-bridge.gracePeriod" -}}
{{- $drain := include "amqp-bridge.seconds" (.bridge.settings.shutdownTimeout | default 20) | int }}
{{- $given := .bridge.terminationGracePeriodSeconds | int }}
{{- if and $given (le $given $drain) }}
{{- fail (printf "bridges.%s.terminationGracePeriodSeconds: %d is not above the shutdown timeout of %d seconds, the bridge would be killed while it drains; raise it, or leave it at 0" .name $given $drain) }}
{{- end }}
{{- $given | default (add $drain 10) }}
{{- end }}

{{/* Fails with every mistake of one bridge that the schema cannot see. */}}
{{- define "amqp-bridge.validate" -}}
{{- $settings := .bridge.settings }}
{{- $environment := list }}
{{- range .bridge.extraEnv }}
{{- $environment = append $environment .name }}
{{- end }}
{{- $wrong := list }}
{{- $url := or $settings.sourceUrl .bridge.source.url (and .bridge.source.existingSecret .bridge.source.keys.url) (has "BRIDGE_SOURCE_URL" $environment) }}
{{- if not $url }}
{{- $wrong = append $wrong "the source's URL is missing: set settings.sourceUrl (without a password), or source.existingSecret with source.keys.url" }}
{{- end }}
{{- if not (or $settings.sourceQueue (has "BRIDGE_SOURCE_QUEUE" $environment)) }}
{{- $wrong = append $wrong "settings.sourceQueue is missing: the queue to take messages from" }}
{{- end }}
{{- if not (or $settings.destinationQueue $settings.destinationExchange (has "BRIDGE_DESTINATION_QUEUE" $environment) (has "BRIDGE_DESTINATION_EXCHANGE" $environment)) }}
{{- $wrong = append $wrong "settings.destinationQueue or settings.destinationExchange is missing: where the messages go" }}
{{- end }}
{{- range $key := list "sourceUrl" "destinationUrl" }}
{{- if regexMatch "//[^/,]*:[^/,]*@" (include "amqp-bridge.text" (index $settings $key | default "")) }}
{{- $wrong = append $wrong (printf "settings.%s holds a password and would be readable in a ConfigMap: use %s.existingSecret" $key (trimSuffix "Url" $key)) }}
{{- end }}
{{- end }}
{{- range $side := list "source" "destination" }}
{{- with index $.bridge $side }}
{{- if and .existingSecret (or .url .username .password) }}
{{- $wrong = append $wrong (printf "%s: existingSecret and url, username or password exclude each other" $side) }}
{{- end }}
{{- if and .tls.clientCertificate (not .tls.secret) }}
{{- $wrong = append $wrong (printf "%s.tls.clientCertificate needs %s.tls.secret" $side $side) }}
{{- end }}
{{- end }}
{{- end }}
{{- with .bridge.keda }}
{{- if and .enabled (not (or .host .existingSecret)) }}
{{- $wrong = append $wrong "keda needs the management API's URL: set keda.existingSecret and keda.key, or keda.host" }}
{{- end }}
{{- if and .enabled (gt (int .minReplicas) (int .maxReplicas)) }}
{{- $wrong = append $wrong "keda.minReplicas is above keda.maxReplicas" }}
{{- end }}
{{- end }}
{{- if $wrong }}
{{- fail (printf "\nbridges.%s:\n  - %s" .name (join "\n  - " $wrong)) }}
{{- end }}
{{- end }}
