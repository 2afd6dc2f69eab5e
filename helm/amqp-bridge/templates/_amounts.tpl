{{/*
Numbers with units. Each takes a value as a text or a number and prints a number; nothing where it is none of its kind.
*/}}

{{- define "amqp-bridge.amount" -}}
{{- $text := include "amqp-bridge.text" .value | trim }}
{{- if regexMatch "^[0-9]+([.][0-9]+)? *[A-Za-z]*$" $text }}
{{- $unit := regexFind "[A-Za-z]*$" $text }}
{{- if hasKey .units $unit }}
{{- mulf (regexFind "^[0-9.]+" $text | float64) (index .units $unit) }}
{{- end }}
{{- end }}
{{- end }}

{{/* Seconds of a duration as the service reads it: 20, "20s", "500ms", "5m", "1h". */}}
{{- define "amqp-bridge.seconds" -}}
{{- include "amqp-bridge.amount" (dict "value" . "units" (dict "" 1 "ms" 0.001 "s" 1 "m" 60 "h" 3600)) }}
{{- end }}

{{/* Bytes of a size as the service reads it: 67108864, "64MiB", "64MB", in any case. */}}
{{- define "amqp-bridge.bytes" -}}
{{- $units := dict "" 1 "b" 1 "kb" 1e3 "mb" 1e6 "gb" 1e9 "tb" 1e12 "kib" 1024 "mib" 1048576 "gib" 1073741824 "tib" 1099511627776 }}
{{- include "amqp-bridge.amount" (dict "value" (include "amqp-bridge.text" . | lower) "units" $units) }}
{{- end }}

{{/* Bytes of a quantity as Kubernetes reads it: 268435456, "256Mi", "256M". */}}
{{- define "amqp-bridge.quantity" -}}
{{- $units := dict "" 1 "m" 0.001 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 }}
{{- include "amqp-bridge.amount" (dict "value" . "units" $units) }}
{{- end }}

{{- define "amqp-bridge.shutdownSeconds" -}}
{{- include "amqp-bridge.seconds" (.bridge.settings.shutdownTimeout | default 20) | float64 | ceil | int }}
{{- end }}

{{- define "amqp-bridge.gracePeriod" -}}
{{- .bridge.terminationGracePeriodSeconds | int | default (add (include "amqp-bridge.shutdownSeconds" . | int) 10) }}
{{- end }}
