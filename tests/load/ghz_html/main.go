// ghz_html turns ghz's JSON report, on standard input, into its HTML report, on standard output, so that one run gives both.
package main

import (
	"encoding/json"
	"log"
	"os"

	"github.com/bojand/ghz/printer"
	"github.com/bojand/ghz/runner"
)

func main() {
	var report runner.Report
	if err := json.NewDecoder(os.Stdin).Decode(&report); err != nil {
		log.Fatal(err)
	}
	html := printer.ReportPrinter{Report: &report, Out: os.Stdout}
	if err := html.Print("html"); err != nil {
		log.Fatal(err)
	}
}
