// Calls a server with attend's generated code, and reads its error with the classes that Go has of google.rpc.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	attendv1 "github.com/attend/attend/gen/go/attend/v1"
)

func tensor(shape ...int64) *attendv1.Tensor {
	count := int64(1)
	for _, size := range shape {
		count *= size
	}
	values := make([]float32, count)
	for i := range values {
		values[i] = float32(i)
	}
	return &attendv1.Tensor{Shape: shape, Values: values}
}

func main() {
	connection, err := grpc.NewClient(os.Args[1], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	defer connection.Close()
	client := attendv1.NewAttentionServiceClient(connection)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()

	request := &attendv1.ScaledDotProductAttentionRequest{Query: tensor(1, 2), Key: tensor(1, 2), Value: tensor(1, 2)}
	response, err := client.ScaledDotProductAttention(ctx, request)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("output", len(response.Output.Values))

	request.Key = tensor(1, 3)
	_, err = client.ScaledDotProductAttention(ctx, request)
	failure := status.Convert(err)
	fmt.Println("code", int(failure.Code()))
	for _, detail := range failure.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			fmt.Println("reason", detail.Reason, detail.Domain)
		case *errdetails.BadRequest:
			fmt.Println("field", detail.FieldViolations[0].Field)
		}
	}
}
