package rest

import _ "embed"

//go:generate cp ../../openapi.yaml openapi.gen.yaml

//go:embed openapi.gen.yaml
var contract string

// Contract is openapi.yaml as it was written, with its order and its comments.
func Contract() string { return contract }
