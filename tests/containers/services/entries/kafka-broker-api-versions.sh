#!/bin/sh
# The option of the tool of this name that the health check uses.
set -eu
[ "$1" = --bootstrap-server ]
exec java -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -cp '/opt/kafka/libs/*' org.apache.kafka.tools.BrokerApiVersionsCommand "$@"
