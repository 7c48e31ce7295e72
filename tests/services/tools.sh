#!/usr/bin/env bash
# Installs what the tests of the chart, the documents and the workflows run: Helm and its helpers, Prometheus, Compose, a
# mail server that shows what it got, a tool of Kafka, the schemas of Kubernetes and of the custom resources, Kafka
# clients of other languages, and actionlint. Needs Go, npm, Maven and pip. The first run compiles for some minutes; a
# second run finds everything in place.
set -euo pipefail
# shellcheck source=installing.sh
source "$(dirname "${BASH_SOURCE[0]}")/installing.sh"

# Its module replaces a dependency, which `go install` refuses: a module of our own says the same.
install_helm_unittest() {
  local binary="$cache/helm-unittest-$HELM_UNITTEST" module=github.com/helm-unittest/helm-unittest
  if [ ! -x "$binary" ]; then
    need go helm-unittest
    mkdir "$work/unittest"
    (
      cd "$work/unittest"
      quietly go mod init unittest
      quietly go mod edit \
        "-replace=github.com/vmware-labs/yaml-jsonpath=github.com/helm-unittest/yaml-jsonpath@v$YAML_JSONPATH"
      quietly go get "$module/cmd/helm-unittest@v$HELM_UNITTEST"
      quietly env CGO_ENABLED=0 go build -trimpath -ldflags='-s -w' -o "$work/helm-unittest" "$module/cmd/helm-unittest"
    )
    mv "$work/helm-unittest" "$binary"
  fi
  say helm-unittest "$HELM_UNITTEST in $binary"
}

# Finds the folder of a Go module, for files in it that are not code.
module_folder() {
  need go "the schemas of $1"
  go mod download -json "$1" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p'
}

# Its module replaces dependencies, too.
install_compose() {
  local binary="$cache/compose-$COMPOSE" module=github.com/docker/compose/v2
  if [ ! -x "$binary" ]; then
    need go Compose
    mkdir "$work/compose"
    (
      cd "$work/compose"
      quietly go mod init compose
      quietly go get "$module/cmd@v$COMPOSE"
      quietly env CGO_ENABLED=0 go build -trimpath \
        "-ldflags=-s -w -X $module/internal.Version=v$COMPOSE" -o "$work/docker-compose" "$module/cmd"
    )
    mv "$work/docker-compose" "$binary"
  fi
  say compose "$COMPOSE in $binary"
}

# The health check of the broker in docker-compose.yml runs a tool of this jar.
install_kafka_tools() {
  local jar="$cache/kafka-tools-$KAFKA.jar"
  if [ ! -e "$jar" ]; then
    need mvn "Kafka's tools"
    quietly mvn -q -B dependency:copy "-Dartifact=org.apache.kafka:kafka-tools:$KAFKA" "-DoutputDirectory=$work/tools"
    mv "$work/tools/kafka-tools-$KAFKA.jar" "$jar"
  fi
  say kafka-tools "$KAFKA in $jar"
}

install_crds() {
  local crds="$cache/crds-$PROMETHEUS_OPERATOR-$KEDA-$GATEWAY_API" operator keda gateway
  if [ ! -d "$crds" ]; then
    operator="$(module_folder "github.com/prometheus-operator/prometheus-operator@v$PROMETHEUS_OPERATOR")"
    keda="$(module_folder "github.com/kedacore/keda/v2@v$KEDA")"
    gateway="$(module_folder "sigs.k8s.io/gateway-api@v$GATEWAY_API")"
    mkdir "$work/crds"
    install -m 644 "$operator"/example/prometheus-operator-crd/*.yaml "$keda"/config/crd/bases/*.yaml \
      "$gateway"/config/crd/standard/*_httproutes.yaml "$work/crds"
    mv "$work/crds" "$crds"
  fi
  say crds "Prometheus Operator $PROMETHEUS_OPERATOR, KEDA $KEDA, Gateway API $GATEWAY_API in $crds"
}

# The strict JSON schemas of every Kubernetes version, as the validator kubernetes-validate ships them.
install_kubernetes_schemas() {
  local schemas="$cache/kubernetes-schemas-$KUBERNETES_SCHEMAS"
  if [ ! -d "$schemas" ]; then
    need python3 "the Kubernetes schemas"
    quietly python3 -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes \
      -r "$here/kubernetes-schemas.txt" -d "$work/wheel"
    python3 -m zipfile -e "$work"/wheel/*.whl "$work/wheel/content"
    mv "$work/wheel/content/kubernetes_validate/kubernetes-json-schema" "$schemas"
  fi
  say kubernetes "schemas in $schemas"
}

# The Kafka clients of the producers that the docs show; a producer in Go is built on a copy of its module.
install_node_client() {
  local client="$cache/platformatic-kafka-$PLATFORMATIC_KAFKA"
  if [ ! -d "$client" ]; then
    need npm "the producer in Node"
    quietly npm install --prefix "$work/node" --no-audit --no-fund "@platformatic/kafka@$PLATFORMATIC_KAFKA"
    mv "$work/node" "$client"
  fi
  say node "@platformatic/kafka $PLATFORMATIC_KAFKA in $client"
}

install_go_client() {
  local client="$cache/kafka-go-$KAFKA_GO"
  if [ ! -d "$client" ]; then
    need go "the producer in Go"
    mkdir "$work/producer"
    (
      cd "$work/producer"
      quietly go mod init producer
      quietly go get "github.com/segmentio/kafka-go@v$KAFKA_GO"
    )
    mv "$work/producer" "$client"
  fi
  say go "kafka-go $KAFKA_GO in $client"
}

install_go helm "$HELM" helm.sh/helm/v3/cmd/helm
install_go helm-docs "$HELM_DOCS" github.com/norwoodj/helm-docs/cmd/helm-docs
install_helm_unittest
install_go kubeconform "$KUBECONFORM" github.com/yannh/kubeconform/cmd/kubeconform
# Without the service discoveries, and so without the clients of every cloud, both build in a fraction of the time.
install_go promtool "$PROMETHEUS" github.com/prometheus/prometheus/cmd/promtool remove_all_sd
install_go prometheus "$PROMETHEUS" github.com/prometheus/prometheus/cmd/prometheus remove_all_sd
install_compose
install_kafka_tools
install_go mailpit "$MAILPIT" github.com/axllent/mailpit
install_crds
install_kubernetes_schemas
install_node_client
install_go_client
install_go actionlint "$ACTIONLINT" github.com/rhysd/actionlint/cmd/actionlint
