// Command speccheck says what of the contract no test has seen. `make test`
// runs it last, on the file that MENDIAN_SPECTEST_FILE named:
//
//	go run ./internal/handlers/spectest/speccheck -exceptions api/uncovered.yaml FILE…
//
// It must not know any exception itself: they stand in the file, with reasons.
package main

import (
	"flag"
	"fmt"
	"log"
	"os"

	"go.yaml.in/yaml/v3"

	"github.com/mendian/mendian/internal/handlers/spectest"
)

func main() {
	log.SetFlags(0)
	name := flag.String("exceptions", "", "a YAML file that maps operations and codes to reasons")
	flag.Parse()
	exceptions := map[string]string{}
	if *name != "" {
		data, err := os.ReadFile(*name)
		if err != nil {
			log.Fatal(err)
		}
		if err := yaml.Unmarshal(data, &exceptions); err != nil {
			log.Fatalf("%s: %v", *name, err)
		}
	}
	wrong, err := spectest.Check(flag.Args(), exceptions)
	if err != nil {
		log.Fatal(err)
	}
	for _, w := range wrong {
		fmt.Println(w)
	}
	if len(wrong) > 0 {
		log.Fatalf("%d differences between the contract and what tests saw", len(wrong))
	}
}
