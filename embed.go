// Package sockwatch holds the built-in configuration.
package sockwatch

import _ "embed"

// ExampleConfig is config.example.toml.
//
//go:embed config.example.toml
var ExampleConfig string
