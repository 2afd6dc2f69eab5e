{{/*
What is wrong with the values and a JSON schema cannot say: quantities that are out of range and values that do not go
together. All of it is reported at once. The ranges are the service's own, out of files/settings.json.
*/}}

{{- define "amqp-bridge.validate" -}}
{{- $wrong := list }}
{{- with .Values.monitoring }}
{{- $scrapes := list }}
{{- range $name, $on := dict "scrapeAnnotations" .scrapeAnnotations "podMonitor.enabled" .podMonitor.enabled "serviceMonitor.enabled" .serviceMonitor.enabled }}
{{- if $on }}
{{- $scrapes = append $scrapes (printf "monitoring.%s" $name) }}
{{- end }}
{{- end }}
{{- if gt (len $scrapes) 1 }}
{{- $wrong = append $wrong (printf "%s are both set and every pod would be scraped twice: choose one" (join " and " $scrapes)) }}
{{- end }}
{{- end }}
{{- range $name, $values := include "amqp-bridge.bridges" . | fromJson }}
{{- $bridge := dict "root" $ "name" $name "bridge" $values }}
{{- range include "amqp-bridge.problems" $bridge | fromJsonArray }}
{{- $wrong = append $wrong (printf "bridges.%s: %s" $name .) }}
{{- end }}
{{- end }}
{{- $bridges := include "amqp-bridge.bridges" . | fromJson }}
{{- $wrong = concat $wrong (include "amqp-bridge.problems.scraping" . | fromJsonArray) }}
{{- range $name, $own := .Values.drains }}
{{- $drain := $own | default dict }}
{{- if and (ne $drain.enabled false) (not (hasKey $bridges ($drain.bridge | default $name))) }}
{{- $wrong = append $wrong (printf "drains.%s: there is no bridge %q that is enabled: set drains.%s.bridge to the one whose settings it has" $name ($drain.bridge | default $name) $name) }}
{{- end }}
{{- end }}
{{- if $wrong }}
{{- fail (printf "\nthese values cannot work:\n  - %s" (join "\n  - " $wrong)) }}
{{- end }}
{{- end }}

{{/* Why a monitor or an annotation cannot have the bridges scraped, as a JSON array of sentences. */}}
{{- define "amqp-bridge.problems.scraping" -}}
{{- $wrong := list }}
{{- $served := list }}
{{- $tls := false }}
{{- $login := false }}
{{- range $name, $values := include "amqp-bridge.bridges" . | fromJson }}
{{- $bridge := dict "bridge" $values }}
{{- $served = append $served (printf "%s %s" (include "amqp-bridge.httpTls" $bridge) (toJson $values.http.token)) }}
{{- $tls = or $tls (include "amqp-bridge.httpTls" $bridge) }}
{{- $login = or $login (include "amqp-bridge.httpLogin" $bridge) }}
{{- end }}
{{- range $kind := list "podMonitor" "serviceMonitor" }}
{{- with index $.Values.monitoring $kind }}
{{- if and .enabled (gt (len (uniq $served)) 1) }}
{{- $wrong = append $wrong (printf "monitoring.%s asks all bridges alike, and they serve by different http.tls or http.token: set these in defaults" $kind) }}
{{- end }}
{{- if and .enabled $tls (not .tlsConfig) }}
{{- $wrong = append $wrong (printf "monitoring.%s.tlsConfig is missing: by which CA and serverName the certificate of http.tls is verified, as in {ca: {secret: {name: bridge-tls, key: ca.crt}}, serverName: bridge.example}" $kind) }}
{{- end }}
{{- end }}
{{- end }}
{{- if and .Values.monitoring.scrapeAnnotations $login }}
{{- $wrong = append $wrong "monitoring.scrapeAnnotations cannot show a token or a certificate: use monitoring.podMonitor, or a scrape configuration of your own" }}
{{- end }}
{{- toJson $wrong }}
{{- end }}

{{/* The problems of one bridge, as a JSON array of sentences. */}}
{{- define "amqp-bridge.problems" -}}
{{- $wrong := list }}
{{- range list "missing" "ranges" "conflicts" "sides" "http" "resources" }}
{{- $wrong = concat $wrong (include (printf "amqp-bridge.problems.%s" .) $ | fromJsonArray) }}
{{- end }}
{{- toJson $wrong }}
{{- end }}

{{/* Whether a setting comes from outside `settings`: the name of its variable is in the dict as "variable". */}}
{{- define "amqp-bridge.fromElsewhere" -}}
{{- $found := not (empty .bridge.extraEnvFrom) }}
{{- range .bridge.extraEnv }}
{{- $found = or $found (eq .name $.variable) }}
{{- end }}
{{- if $found }}yes{{ end }}
{{- end }}

{{- define "amqp-bridge.problems.missing" -}}
{{- $wrong := list }}
{{- $settings := .bridge.settings }}
{{- $elsewhere := dict }}
{{- range list "SOURCE_URL" "SOURCE_QUEUE" "DESTINATION_URL" "DESTINATION_QUEUE" "DESTINATION_EXCHANGE" "DESTINATION_ROUTE" }}
{{- $_ := set $elsewhere . (include "amqp-bridge.fromElsewhere" (dict "bridge" $.bridge "variable" (printf "BRIDGE_%s" .))) }}
{{- end }}
{{- $source := .bridge.source }}
{{- if not (or $settings.sourceUrl $source.url (and $source.existingSecret $source.keys.url) $elsewhere.SOURCE_URL) }}
{{- $wrong = append $wrong "the source's URL is missing: set settings.sourceUrl (without a password), or source.existingSecret with source.keys.url" }}
{{- end }}
{{- if not (or $settings.sourceQueue $elsewhere.SOURCE_QUEUE) }}
{{- $wrong = append $wrong "settings.sourceQueue is missing: the queue to take messages from" }}
{{- end }}
{{- if not (or $settings.destinationQueue $settings.destinationExchange $settings.destinationRoute $elsewhere.DESTINATION_QUEUE $elsewhere.DESTINATION_EXCHANGE $elsewhere.DESTINATION_ROUTE) }}
{{- $wrong = append $wrong "settings.destinationQueue or settings.destinationExchange is missing: where the messages go" }}
{{- end }}
{{- with .bridge.destination }}
{{- if and (or .existingSecret .username .password .tls.secret) (not (or $settings.destinationUrl .url (and .existingSecret .keys.url) $elsewhere.DESTINATION_URL)) }}
{{- $wrong = append $wrong "the destination has a Secret, a login or TLS files and no URL, so messages would go to the source's broker: set settings.destinationUrl, or destination.keys.url; repeat the source's URL where that broker is meant" }}
{{- end }}
{{- end }}
{{- toJson $wrong }}
{{- end }}

{{- define "amqp-bridge.problems.ranges" -}}
{{- $wrong := list }}
{{- range $name, $range := .root.Files.Get "files/settings.json" | fromJson }}
{{- $value := index $.bridge.settings $name }}
{{- if and $value (eq $range.unit "urls") }}
{{- range splitList "," (include "amqp-bridge.text" $value) }}
{{- if regexMatch "//[^/?#]*[/?#].*@" . }}
{{- $wrong = append $wrong (printf "settings.%s has an \"@\" behind a \"/\", \"?\" or \"#\"; expected special characters of user and password percent-encoded, and any other \"@\" written as %%40" $name) }}
{{- else if not (regexMatch "^amqps?://[^\\s/]+(/\\S*)?$" (trim .)) }}
{{- $wrong = append $wrong (printf "settings.%s: %q is not a broker's URL; expected amqp://user@host:5672/vhost, or amqps://" $name .) }}
{{- end }}
{{- end }}
{{- end }}
{{- if and $value (eq $range.unit "token url") (not (regexMatch $range.pattern $value)) }}
{{- $wrong = append $wrong (printf "settings.%s: is not the URL of a token server, without a login; expected https://host/path" $name) }}
{{- end }}
{{- if and $value (eq $range.unit "scope") (not (regexMatch $range.pattern $value)) }}
{{- $wrong = append $wrong (printf "settings.%s: %q has characters that no scope has; expected words of ASCII, separated by spaces" $name $value) }}
{{- end }}
{{- if and $value (eq $range.unit "bindings") }}
{{- $bindings := $value }}
{{- if kindIs "string" $value }}
{{- $bindings = fromJsonArray $value }}
{{- end }}
{{- range $bindings }}
{{- if not (and (kindIs "map" .) (get . "exchange")) }}
{{- $wrong = append $wrong (printf "settings.%s: %s is no binding; expected a list such as [{\"exchange\": \"orders\", \"routing_key\": \"order.#\"}]" $name (toJson .)) }}
{{- end }}
{{- end }}
{{- end }}
{{- if eq $range.unit "number or 0" }}
{{- if and $value (lt (float64 $value) (float64 $range.minimum)) }}
{{- $wrong = append $wrong (printf "settings.%s: %v is out of range; expected 0, or %d to %d" $name $value (int64 $range.minimum) (int64 $range.maximum)) }}
{{- end }}
{{- else if kindIs "string" $value }}
{{- if eq $range.unit "seconds" }}
{{- $seconds := include "amqp-bridge.seconds" $value }}
{{- if not $seconds }}
{{- $wrong = append $wrong (printf "settings.%s: %q is not a duration such as 30, 30s, 5m or 500ms; expected %v to %v seconds" $name $value $range.minimum $range.maximum) }}
{{- else if (or (lt ($seconds | float64) ($range.minimum | float64)) (gt ($seconds | float64) ($range.maximum | float64))) }}
{{- $wrong = append $wrong (printf "settings.%s: %q is out of range; expected %v to %v seconds" $name $value $range.minimum $range.maximum) }}
{{- end }}
{{- else if eq $range.unit "bytes" }}
{{- $bytes := include "amqp-bridge.bytes" $value }}
{{- if not $bytes }}
{{- $wrong = append $wrong (printf "settings.%s: %q is not a size such as 67108864, 64MiB or 64MB; expected %d to %d bytes" $name $value (int64 $range.minimum) (int64 $range.maximum)) }}
{{- else if (or (lt ($bytes | float64) ($range.minimum | float64)) (gt ($bytes | float64) ($range.maximum | float64))) }}
{{- $wrong = append $wrong (printf "settings.%s: %q is out of range; expected %d to %d bytes" $name $value (int64 $range.minimum) (int64 $range.maximum)) }}
{{- end }}
{{- else if and (eq $range.unit "name") (gt (len $value) 255) }}
{{- $wrong = append $wrong (printf "settings.%s is %d bytes long; expected at most 255" $name (len $value)) }}
{{- else if and (eq $range.unit "name") (gt (len $value) (int $range.nonAsciiBytes)) (regexMatch "[^\\x00-\\x7F]" $value) }}
{{- $wrong = append $wrong (printf "settings.%s is %d bytes long and not in ASCII alone; expected at most %d bytes then" $name (len $value) (int $range.nonAsciiBytes)) }}
{{- else if and (eq $range.unit "table") $value (hasKey (fromJson $value) "Error") }}
{{- $wrong = append $wrong (printf "settings.%s: %q is not a JSON object; expected a mapping" $name $value) }}
{{- end }}
{{- end }}
{{- end }}
{{- toJson $wrong }}
{{- end }}

{{- define "amqp-bridge.problems.conflicts" -}}
{{- $wrong := list }}
{{- with .bridge.settings }}
{{- if and .destinationQueue .destinationExchange }}
{{- $wrong = append $wrong "settings.destinationQueue and settings.destinationExchange are both set; expected one of them" }}
{{- end }}
{{- if and .sourceOffsetName (or (gt (int $.bridge.replicas) 1) $.bridge.keda.enabled) }}
{{- $wrong = append $wrong "settings.sourceOffsetName is for one bridge, and there would be several pods; expected replicas: 1 and no keda" }}
{{- end }}
{{- if and .sourceStreamUrl (not .sourceOffsetName) }}
{{- $wrong = append $wrong "settings.sourceStreamUrl is set without settings.sourceOffsetName; expected both" }}
{{- end }}
{{- range splitList "," (.sourceStreamUrl | default "") }}
{{- if regexMatch "//[^/]*:.*@" . }}
{{- $wrong = append $wrong "settings.sourceStreamUrl holds a password and would be readable in a ConfigMap: without a login it has the source's" }}
{{- else if and . (not (regexMatch "^rabbitmq-stream(\\+tls)?://[^\\s/@]+/?$" (trim .))) }}
{{- $wrong = append $wrong (printf "settings.sourceStreamUrl: %q is no URL of the stream protocol; expected rabbitmq-stream://host:5552, or rabbitmq-stream+tls://" .) }}
{{- end }}
{{- end }}
{{- if .destinationRoute }}
{{- range list "destinationQueue" "destinationExchange" "destinationRoutingKey" "destinationDeclare" }}
{{- if index $.bridge.settings . }}
{{- $wrong = append $wrong (printf "settings.destinationRoute and settings.%s are both set; expected one of them" .) }}
{{- end }}
{{- end }}
{{- end }}
{{- if and .destinationRoutingKey .destinationQueue }}
{{- $wrong = append $wrong "settings.destinationRoutingKey is set with settings.destinationQueue; expected it with settings.destinationExchange" }}
{{- end }}
{{- if and .destinationDeclare .destinationExchange }}
{{- $wrong = append $wrong "settings.destinationDeclare declares a queue; expected it with settings.destinationQueue only" }}
{{- end }}
{{- range $side := list "source" "destination" }}
{{- $declared := index $.bridge.settings (printf "%sDeclare" $side) }}
{{- /* The source's type is also the operator's word on a queue that the bridge may not ask. */}}
{{- range eq $side "source" | ternary (list "QueueArguments") (list "QueueType" "QueueArguments") }}
{{- if and (not $declared) (index $.bridge.settings (printf "%s%s" $side .)) (ne (index $.bridge.settings (printf "%s%s" $side .) | toString) "quorum") }}
{{- $wrong = append $wrong (printf "settings.%s%s has no effect; expected it with settings.%sDeclare: true" $side . $side) }}
{{- end }}
{{- end }}
{{- end }}
{{- if and (not (kindIs "invalid" .sourceConsumerPriority)) (kindIs "map" .sourceConsumerArguments) }}
{{- if hasKey .sourceConsumerArguments "x-priority" }}
{{- $wrong = append $wrong "settings.sourceConsumerPriority and x-priority in settings.sourceConsumerArguments are both set; expected one of them" }}
{{- end }}
{{- end }}
{{- if and .sourceBindings (not .sourceDeclare) }}
{{- $wrong = append $wrong "settings.sourceBindings is set without settings.sourceDeclare: true; expected both" }}
{{- end }}
{{- if and .maxHops (not .provenance) }}
{{- $wrong = append $wrong "settings.maxHops is set without settings.provenance: true, which counts them; expected both" }}
{{- end }}
{{- $least := include "amqp-bridge.seconds" (.reconnectMin | default 0.2) | float64 }}
{{- $most := include "amqp-bridge.seconds" (.reconnectMax | default 30) | float64 }}
{{- if gt $least $most }}
{{- $wrong = append $wrong (printf "settings.reconnectMin (%v s) is above settings.reconnectMax (%v s); expected it below" $least $most) }}
{{- end }}
{{- with .quarantineQueue }}
{{- if eq . ($.bridge.settings.sourceQueue | default "") }}
{{- $wrong = append $wrong "settings.quarantineQueue is the source queue itself; expected another queue" }}
{{- end }}
{{- end }}
{{- end }}
{{- toJson $wrong }}
{{- end }}

{{- define "amqp-bridge.problems.sides" -}}
{{- $wrong := list }}
{{- range $side := list "source" "destination" }}
{{- $urls := include "amqp-bridge.text" (index $.bridge.settings (printf "%sUrl" $side) | default "") }}
{{- if regexMatch "//[^/,]*:[^/,]*@" $urls }}
{{- $wrong = append $wrong (printf "settings.%sUrl holds a password and would be readable in a ConfigMap: use %s.existingSecret" $side $side) }}
{{- end }}
{{- if and (contains "amqp://" $urls) (contains "amqps://" $urls) }}
{{- $wrong = append $wrong (printf "settings.%sUrl mixes amqp:// and amqps://; expected one scheme, or passwords would cross in the clear" $side) }}
{{- end }}
{{- $name := index $.bridge.settings (printf "%sTlsServerName" $side) | default "" }}
{{- $unverified := eq (index $.bridge.settings (printf "%sTlsVerify" $side) | toString) "false" }}
{{- if and $name (not (regexMatch "^\\s*([0-9A-Za-z_-]+(\\.[0-9A-Za-z_-]+)*|[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*)\\.?\\s*$" $name)) }}
{{- $wrong = append $wrong (printf "settings.%sTlsServerName: %q is not a host name; expected one as in the certificate, without a port" $side $name) }}
{{- else if and $name $unverified }}
{{- $wrong = append $wrong (printf "settings.%sTlsServerName has no effect with settings.%sTlsVerify=false; expected one or the other" $side $side) }}
{{- else if and (or $name $unverified) (contains "amqp://" $urls) }}
{{- $wrong = append $wrong (printf "settings.%s%s has no effect on amqp://; expected an amqps:// URL" $side (ternary "TlsServerName" "TlsVerify" (ne $name ""))) }}
{{- end }}
{{- $given := list }}
{{- range $name := list "TokenUrl" "ClientId" "ClientSecretFile" "Scope" }}
{{- if index $.bridge.settings (printf "%sOauth%s" $side $name) }}
{{- $given = append $given $name }}
{{- end }}
{{- end }}
{{- range $name := list "TokenUrl" "ClientId" "ClientSecretFile" }}
{{- if and $given (not (has $name $given)) }}
{{- $wrong = append $wrong (printf "settings.%sOauth%s is not set; expected it with settings.%sOauth%s" $side $name $side (first $given)) }}
{{- end }}
{{- end }}
{{- if and $given (include "amqp-bridge.keys" (dict "side" $side "given" (index $.bridge $side)) | fromJson).password }}
{{- $wrong = append $wrong (printf "%s has a password, and settings.%sOauth%s has tokens fetched; expected one or the other" $side $side (first $given)) }}
{{- end }}
{{- with index $.bridge $side }}
{{- if and .existingSecret (or .url .username .password) }}
{{- $wrong = append $wrong (printf "%s: existingSecret and url, username or password exclude each other" $side) }}
{{- end }}
{{- if and .url $urls }}
{{- $wrong = append $wrong (printf "%s.url and settings.%sUrl are both set; expected one of them" $side $side) }}
{{- end }}
{{- if and .tls.clientCertificate (not .tls.secret) }}
{{- $wrong = append $wrong (printf "%s.tls.clientCertificate needs %s.tls.secret" $side $side) }}
{{- end }}
{{- if and .tls.secret (contains "amqp://" $urls) }}
{{- $wrong = append $wrong (printf "%s.tls.secret has no effect on amqp://; expected an amqps:// URL" $side) }}
{{- end }}
{{- end }}
{{- end }}
{{- toJson $wrong }}
{{- end }}

{{- define "amqp-bridge.problems.http" -}}
{{- $wrong := list }}
{{- with .bridge.http }}
{{- if and .tls.clientCa (not .tls.secret) }}
{{- $wrong = append $wrong "http.tls.clientCa needs http.tls.secret" }}
{{- end }}
{{- if and .tls.secret $.bridge.settings.httpCertFile }}
{{- $wrong = append $wrong "http.tls.secret and settings.httpCertFile are both set; expected one of them" }}
{{- end }}
{{- if and .token.secret $.bridge.settings.httpTokenFile }}
{{- $wrong = append $wrong "http.token.secret and settings.httpTokenFile are both set; expected one of them" }}
{{- end }}
{{- end }}
{{- range $name := list "httpKeyFile" "httpClientCaFile" }}
{{- if and (index $.bridge.settings $name) (not $.bridge.settings.httpCertFile) }}
{{- $wrong = append $wrong (printf "settings.%s is set without settings.httpCertFile; expected both" $name) }}
{{- end }}
{{- end }}
{{- range splitList "," (.bridge.settings.httpAllowedHosts | default "") }}
{{- if and (trim .) (not (regexMatch "^([0-9A-Za-z_-]+(\\.[0-9A-Za-z_-]+)*|[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*)\\.?$" (trim .))) }}
{{- $wrong = append $wrong (printf "settings.httpAllowedHosts: %q is not a host name; expected names, comma-separated, without ports" (trim .)) }}
{{- end }}
{{- end }}
{{- toJson $wrong }}
{{- end }}

{{- define "amqp-bridge.problems.resources" -}}
{{- $wrong := list }}
{{- $drain := include "amqp-bridge.shutdownSeconds" . | int }}
{{- $given := .bridge.terminationGracePeriodSeconds | int }}
{{- if and $given (le $given $drain) }}
{{- $wrong = append $wrong (printf "terminationGracePeriodSeconds: %d is not above the shutdown timeout of %d seconds, the bridge would be killed while it drains; raise it, or leave it at 0" $given $drain) }}
{{- end }}
{{- with dig "limits" "memory" "" .bridge.resources }}
{{- $limit := include "amqp-bridge.quantity" . | float64 }}
{{- $inFlight := $.bridge.settings.maxInFlightBytes | default "64MiB" }}
{{- /* 60 MiB is what the process takes beside what is in flight: measured, and held by tests/broker/test_memory.py. */}}
{{- $needed := addf (include "amqp-bridge.bytes" $inFlight | float64) (mulf 60 1048576) }}
{{- if and $limit (gt $needed $limit) }}
{{- $wrong = append $wrong (printf "settings.maxInFlightBytes (%s) and the 60 MiB of the process do not fit into resources.limits.memory (%s): raise the limit to %dMi at least" (include "amqp-bridge.text" $inFlight) (toString .) (divf $needed 1048576 | ceil | int)) }}
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
{{- if and (eq .bridge.dnsPolicy "None") (not .bridge.dnsConfig) }}
{{- $wrong = append $wrong "dnsPolicy None needs dnsConfig" }}
{{- end }}
{{- toJson $wrong }}
{{- end }}
