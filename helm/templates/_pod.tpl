{{/* The dependencies of each command; it gets their secrets and no others. */}}
{{- define "waybill.dependencies" -}}
consumer: [database, clickhouse, kafka, s3, google, links, operator]
notify: [database, kafka, smtp, webhook, slack, links]
migrate: [database]
topics: [kafka]
create: [database, kafka]
doctor: [database, clickhouse, kafka, s3, google, smtp, webhook, slack, links]
{{- end -}}

{{/* The text of one setting: numbers with all their digits, never as 1e+06. */}}
{{- define "waybill.setting" -}}
{{- kindIs "string" . | ternary . (toJson .) | quote -}}
{{- end -}}

{{/* The source of the volume with the private authorities; empty if there are none. */}}
{{- define "waybill.privateCA" -}}
{{- $ca := .Values.privateCA -}}
{{- if and $ca.existingSecret $ca.existingConfigMap -}}
{{- fail "privateCA.existingSecret and privateCA.existingConfigMap name the same file: choose one" -}}
{{- end -}}
{{- with $ca.existingSecret -}}
secret: {secretName: {{ . | quote }}}
{{- end -}}
{{- with $ca.existingConfigMap -}}
configMap: {name: {{ . | quote }}}
{{- end -}}
{{- end -}}

{{/* One variable of a secret: dict "name" "secret" "key". */}}
{{- define "waybill.secretVariable" -}}
- name: {{ .name }}
  valueFrom:
    secretKeyRef:
      name: {{ .secret | quote }}
      key: {{ .key | quote }}
{{- end -}}

{{/* The variables of the secrets of one command: dict "root" "command". */}}
{{- define "waybill.secretEnv" -}}
{{- $secrets := .root.Values.secrets -}}
{{- $needed := index (include "waybill.dependencies" .root | fromYaml) .command -}}
{{- $oauth := eq (dig "KAFKA_SASL_MECHANISM" "PLAIN" .root.Values.settings) "OAUTHBEARER" -}}
{{- $certificate := dict "existingSecret" $secrets.kafka.certificateSecret "key" $secrets.kafka.privateKeyPasswordKey -}}
{{- $variables := list
  (list "database" $secrets.database "urlKey" "DATABASE_URL")
  (list "database" $secrets.database "passwordKey" "DATABASE_PASSWORD")
  (list "clickhouse" $secrets.clickhouse "passwordKey" "CLICKHOUSE_PASSWORD")
  (list "kafka" $secrets.kafka (ternary "clientIdKey" "usernameKey" $oauth) (ternary "KAFKA_SASL_OAUTHBEARER_CLIENT_ID" "KAFKA_SASL_USERNAME" $oauth))
  (list "kafka" $secrets.kafka (ternary "clientSecretKey" "passwordKey" $oauth) (ternary "KAFKA_SASL_OAUTHBEARER_CLIENT_SECRET" "KAFKA_SASL_PASSWORD" $oauth))
  (list "kafka" $certificate "key" "KAFKA_SSL_KEY_PASSWORD")
  (list "s3" $secrets.s3 "accessKeyIdKey" "LANGFUSE_S3_BATCH_EXPORT_ACCESS_KEY_ID")
  (list "s3" $secrets.s3 "secretAccessKeyKey" "LANGFUSE_S3_BATCH_EXPORT_SECRET_ACCESS_KEY")
  (list "google" $secrets.google "credentialsKey" "LANGFUSE_GOOGLE_CLOUD_STORAGE_CREDENTIALS")
  (list "smtp" $secrets.smtp "urlKey" "SMTP_CONNECTION_URL")
  (list "smtp" $secrets.smtp "oauthClientSecretKey" "SMTP_OAUTH_CLIENT_SECRET")
  (list "smtp" $secrets.smtp "oauthRefreshTokenKey" "SMTP_OAUTH_REFRESH_TOKEN")
  (list "webhook" $secrets.webhook "urlKey" "WAYBILL_WEBHOOK_URL")
  (list "webhook" $secrets.webhook "signingSecretKey" "WAYBILL_WEBHOOK_SECRET")
  (list "slack" $secrets.slack "urlKey" "WAYBILL_SLACK_WEBHOOK_URL")
  (list "links" $secrets.links "signingKey" "WAYBILL_SECRET_KEY")
  (list "operator" $secrets.operator "tokenKey" "WAYBILL_OPERATOR_TOKEN")
-}}
{{- range $each := $variables }}
{{- $secret := index $each 1 }}
{{- if and (has (index $each 0) $needed) $secret.existingSecret (index $secret (index $each 2)) }}
{{ include "waybill.secretVariable" (dict "name" (index $each 3) "secret" $secret.existingSecret "key" (index $secret (index $each 2))) }}
{{- end }}
{{- end }}
{{- end -}}

{{/* A pod that runs one command of waybill: dict "root" "command" "values" (its resources and, for a daemon, its probes)
"pod" (its overrides) "serviceAccountName" and, as needed, "args" (instead of the command alone) "port" (its internal port, makes it a daemon) "annotations" "restartPolicy".
Only a daemon reads the settings from the ConfigMap, because hooks run before it exists. A hook has no setting that
requires a secret that the hook does not have. */}}
{{- define "waybill.pod" -}}
{{- $root := .root -}}
{{- $pod := mergeOverwrite (deepCopy $root.Values.pod) (deepCopy (default dict .pod)) -}}
{{- $needed := index (include "waybill.dependencies" $root | fromYaml) .command -}}
{{- $kafka := has "kafka" $needed -}}
{{- $links := has "links" $needed -}}
{{- $ca := and $kafka $root.Values.secrets.kafka.caSecret -}}
{{- $certificate := and $kafka $root.Values.secrets.kafka.certificateSecret -}}
metadata:
  labels:
    {{- include "waybill.labels" $root | nindent 4 }}
    app.kubernetes.io/component: {{ .command }}
    {{- with $pod.labels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- $annotations := merge (default dict .annotations) $pod.annotations }}
  {{- with $annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  serviceAccountName: {{ .serviceAccountName | quote }}
  automountServiceAccountToken: {{ if .port }}{{ $root.Values.serviceAccount.automountToken }}{{ else }}false{{ end }}
  enableServiceLinks: false
  {{- with concat $root.Values.global.imagePullSecrets $root.Values.image.pullSecrets }}
  imagePullSecrets:
    {{- range . }}
    - name: {{ . | quote }}
    {{- end }}
  {{- end }}
  {{- with .restartPolicy }}
  restartPolicy: {{ . }}
  {{- end }}
  {{- if .port }}
  terminationGracePeriodSeconds: {{ .values.terminationGracePeriodSeconds | default (add 60 (ceil (dig "WAYBILL_DRAIN_SECONDS" 30 $root.Values.settings | float64))) }}
  {{- end }}
  securityContext:
    {{- toYaml $pod.securityContext | nindent 4 }}
  {{- with $pod.priorityClassName }}
  priorityClassName: {{ . | quote }}
  {{- end }}
  {{- with $pod.runtimeClassName }}
  runtimeClassName: {{ . | quote }}
  {{- end }}
  {{- range $key := list "nodeSelector" "tolerations" "affinity" "hostAliases" "dnsConfig" "initContainers" }}
  {{- with index $pod $key }}
  {{ $key }}:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- end }}
  {{- with $pod.topologySpreadConstraints }}
  topologySpreadConstraints:
    {{- range . }}
    -
      {{- toYaml . | nindent 6 }}
      {{- if not .labelSelector }}
      labelSelector:
        matchLabels:
          {{- include "waybill.selectorLabels" $root | nindent 10 }}
          app.kubernetes.io/component: {{ $.command }}
      {{- end }}
    {{- end }}
  {{- end }}
  containers:
    - name: {{ .command }}
      image: {{ include "waybill.image" $root | quote }}
      imagePullPolicy: {{ $root.Values.image.pullPolicy }}
      args: {{ default (list .command) .args | toJson }}
      securityContext:
        {{- toYaml $pod.containerSecurityContext | nindent 8 }}
      env:
        {{- if not .port }}
        {{- /* Kubernetes replaces $(NAME) in values of variables, and $$ by $. */}}
        {{- range $name, $value := $root.Values.settings }}
        {{- if not (or (and (hasPrefix "KAFKA_" $name) (not $kafka)) (and (eq $name "WAYBILL_PUBLIC_URL") (not $links))) }}
        - name: {{ $name }}
          value: {{ include "waybill.setting" $value | replace "$" "$$" }}
        {{- end }}
        {{- end }}
        {{- end }}
        {{- with include "waybill.secretEnv" (dict "root" $root "command" .command) | trim }}
        {{- . | nindent 8 }}
        {{- end }}
        {{- if $ca }}
        - name: KAFKA_SSL_CA_LOCATION
          value: /etc/waybill/kafka/{{ $root.Values.secrets.kafka.caKey }}
        {{- end }}
        {{- if $certificate }}
        - name: KAFKA_SSL_CERTIFICATE_LOCATION
          value: /etc/waybill/kafka-certificate/{{ $root.Values.secrets.kafka.certificateKey }}
        - name: KAFKA_SSL_KEY_LOCATION
          value: /etc/waybill/kafka-certificate/{{ $root.Values.secrets.kafka.privateKeyKey }}
        {{- end }}
        {{- if include "waybill.privateCA" $root }}
        - name: SSL_CERT_FILE
          value: /etc/waybill/ca/{{ $root.Values.privateCA.key }}
        {{- end }}
        {{- with $pod.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- if or .port $pod.extraEnvFrom }}
      envFrom:
        {{- if .port }}
        - configMapRef:
            name: {{ include "waybill.fullname" $root | quote }}
        {{- end }}
        {{- with $pod.extraEnvFrom }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- end }}
      {{- if .port }}
      ports:
        - name: http
          containerPort: {{ .port }}
        {{- if eq .command "consumer" }}
        - name: links
          containerPort: 6066
        {{- end }}
      {{- range $key := list "startupProbe" "livenessProbe" "readinessProbe" "lifecycle" }}
      {{- with index $.values $key }}
      {{ $key }}:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- end }}
      {{- end }}
      resources:
        {{- toYaml .values.resources | nindent 8 }}
      volumeMounts:
        - name: tmp
          mountPath: /tmp
        {{- if $ca }}
        - name: kafka-ca
          mountPath: /etc/waybill/kafka
          readOnly: true
        {{- end }}
        {{- if $certificate }}
        - name: kafka-certificate
          mountPath: /etc/waybill/kafka-certificate
          readOnly: true
        {{- end }}
        {{- if include "waybill.privateCA" $root }}
        - name: private-ca
          mountPath: /etc/waybill/ca
          readOnly: true
        {{- end }}
        {{- with $pod.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    {{- with $pod.sidecars }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  volumes:
    - name: tmp
      emptyDir:
        sizeLimit: {{ $pod.tmpSizeLimit | quote }}
    {{- if $ca }}
    - name: kafka-ca
      secret:
        secretName: {{ $root.Values.secrets.kafka.caSecret | quote }}
    {{- end }}
    {{- if $certificate }}
    - name: kafka-certificate
      secret:
        secretName: {{ $root.Values.secrets.kafka.certificateSecret | quote }}
    {{- end }}
    {{- with include "waybill.privateCA" $root }}
    - name: private-ca
      {{- . | nindent 6 }}
    {{- end }}
    {{- with $pod.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}
