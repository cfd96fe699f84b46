package kubetest

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

const schemaPath = chartDir + "/values.schema.json"

// beginTypes begins the generated part of the schema, which extends to its end.
const beginTypes = "  \"$defs\": "

// The schema contains the Kubernetes types of values, so that a typo in a security context
// is an error instead of a pod without it.
func TestSchemaHoldsTheTypesOfKubernetes(t *testing.T) {
	types := make(schemas)
	for _, value := range []any{
		core.PodSecurityContext{}, core.SecurityContext{}, core.ResourceRequirements{}, core.Affinity{}, core.Toleration{},
		core.LocalObjectReference{}, core.VolumeMount{}, apps.DaemonSetUpdateStrategy{},
		monitoring.SafeTLSConfig{}, monitoring.BasicAuth{}, monitoring.RelabelConfig{},
	} {
		types.of(reflect.TypeOf(value))
	}
	text, err := json.MarshalIndent(types, "  ", "  ")
	if err != nil {
		t.Fatal(err)
	}
	byHand, _, ok := strings.Cut(readFile(t, schemaPath), beginTypes)
	if !ok {
		t.Fatalf("%s has no line %q", schemaPath, beginTypes)
	}
	generated(t, schemaPath, byHand+beginTypes+string(text)+"\n}\n")
}

// schemas are the JSON schemas of types, by their names.
type schemas map[string]schema

type schema map[string]any

// of returns the schema of a type; for a struct, a reference to the struct's own.
func (s schemas) of(typ reflect.Type) schema {
	switch typ {
	case reflect.TypeFor[resource.Quantity]():
		return schema{"type": []string{"string", "number"}}
	case reflect.TypeFor[intstr.IntOrString]():
		return schema{"type": []string{"string", "integer"}}
	case reflect.TypeFor[meta.Duration](), reflect.TypeFor[meta.Time]():
		return schema{"type": "string"}
	}
	switch typ.Kind() {
	case reflect.Pointer:
		return s.of(typ.Elem())
	case reflect.Slice:
		return schema{"type": "array", "items": s.of(typ.Elem())}
	case reflect.Map:
		return schema{"type": "object", "additionalProperties": s.of(typ.Elem())}
	case reflect.Struct:
		if _, ok := s[typ.Name()]; !ok {
			s[typ.Name()] = nil // it may contain itself
			properties := make(map[string]schema)
			s.fields(typ, properties)
			s[typ.Name()] = schema{"type": "object", "additionalProperties": false, "properties": properties}
		}
		return schema{"$ref": "#/$defs/" + typ.Name()}
	case reflect.String:
		return schema{"type": "string"}
	case reflect.Bool:
		return schema{"type": "boolean"}
	case reflect.Int, reflect.Int32, reflect.Int64, reflect.Uint64:
		return schema{"type": "integer"}
	}
	panic("no schema for " + typ.String())
}

// fields adds the schemas of the fields of a struct, including those of embedded structs.
func (s schemas) fields(typ reflect.Type, properties map[string]schema) {
	for _, field := range reflect.VisibleFields(typ) {
		if name, _, _ := strings.Cut(field.Tag.Get("json"), ","); name != "" && name != "-" {
			properties[name] = s.of(field.Type)
		}
	}
}

// Every value of values.yaml is in the schema, and every value of the schema in values.yaml.
func TestSchemaAndValuesHaveTheSameNames(t *testing.T) {
	var parsed schema
	if err := json.Unmarshal([]byte(readFile(t, schemaPath)), &parsed); err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, v := range documentedList(t) {
		want = append(want, v.name)
	}
	slices.Sort(want)
	var got []string
	var walk func(prefix string, s map[string]any)
	walk = func(prefix string, s map[string]any) {
		properties, _ := s["properties"].(map[string]any)
		if properties == nil || s["patternProperties"] != nil {
			got = append(got, prefix)
			return
		}
		for name, property := range properties {
			walk(strings.TrimPrefix(prefix+"."+name, "."), property.(map[string]any))
		}
	}
	walk("", maps.Clone(parsed))
	got = slices.DeleteFunc(got, func(name string) bool { return name == "global" }) // Helm's own, of charts in charts
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("values (-values.yaml +schema):\n%s", diff)
	}
}
