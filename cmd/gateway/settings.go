package main

import (
	"fmt"
	"io"
	"reflect"
	"strings"

	"github.com/mendian/mendian/internal/config"
	"github.com/mendian/mendian/internal/secret"
)

// printSettings shows each setting as it was read; secrets are hidden.
func printSettings(w io.Writer, cfg config.Config) error {
	v := reflect.ValueOf(cfg)
	for i := range v.NumField() {
		name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("env"), ",")
		if name == "-" || name == "" {
			continue
		}
		text := fmt.Sprint(v.Field(i).Interface())
		if s, ok := v.Field(i).Interface().(secret.Text); ok && s.IsZero() {
			text = ""
		}
		if _, err := fmt.Fprintf(w, "%s=%s\n", name, text); err != nil {
			return err
		}
	}
	return nil
}
