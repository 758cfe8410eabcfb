package dev.attend.example;

import com.google.protobuf.Any;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import com.google.rpc.Status;
import dev.attend.v1.AttentionServiceGrpc;
import dev.attend.v1.ScaledDotProductAttentionRequest;
import dev.attend.v1.Tensor;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import java.util.concurrent.TimeUnit;

/** Calls a server with attend's generated code, and reads its error with the classes that Java has of google.rpc. */
public final class Main {
  private static Tensor tensor(int rows, int columns) {
    Tensor.Builder tensor = Tensor.newBuilder().addShape(rows).addShape(columns);
    for (int i = 0; i < rows * columns; ++i) tensor.addValues(i);
    return tensor.build();
  }

  private static void call(ManagedChannel channel) throws Exception {
    AttentionServiceGrpc.AttentionServiceBlockingStub stub =
        AttentionServiceGrpc.newBlockingStub(channel).withDeadlineAfter(1, TimeUnit.MINUTES);
    ScaledDotProductAttentionRequest.Builder request =
        ScaledDotProductAttentionRequest.newBuilder()
            .setQuery(tensor(1, 2))
            .setKey(tensor(1, 2))
            .setValue(tensor(1, 2));
    System.out.println("output " + stub.scaledDotProductAttention(request.build()).getOutput().getValuesCount());
    try {
      stub.scaledDotProductAttention(request.setKey(tensor(1, 3)).build());
    } catch (StatusRuntimeException error) {
      Status status = StatusProto.fromThrowable(error);
      System.out.println("code " + status.getCode());
      for (Any detail : status.getDetailsList()) {
        if (detail.is(ErrorInfo.class)) {
          ErrorInfo info = detail.unpack(ErrorInfo.class);
          System.out.println("reason " + info.getReason() + " " + info.getDomain());
        } else if (detail.is(BadRequest.class)) {
          System.out.println("field " + detail.unpack(BadRequest.class).getFieldViolations(0).getField());
        }
      }
    }
  }

  public static void main(String[] arguments) throws Exception {
    ManagedChannel channel = Grpc.newChannelBuilder(arguments[0], InsecureChannelCredentials.create()).build();
    try {
      call(channel);
    } finally {
      channel.shutdownNow().awaitTermination(1, TimeUnit.MINUTES);
    }
  }
}
