import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.Callable;
import java.util.concurrent.CompletableFuture;
import java.util.stream.Collectors;

/** The JDK's HttpClient, under LangChain4j, Spring and Ktor. By default it offers `Upgrade: h2c` with each first request. */
public class Client {
    static boolean failed = false;

    public static void main(String[] arguments) {
        for (HttpClient.Version version : HttpClient.Version.values()) {
            Client client = new Client(arguments[0], HttpClient.newBuilder().version(version).build());
            check(version + " answers", () -> client.post("hello", false).body().contains("you said hello"));
            check(version + " keeps the connection", () -> client.oneAfterAnother(5));
            check(version + " asks twenty at once", () -> client.atOnce(20));
            check(version + " sends a large body", () -> client.post(" ".repeat(900) + "x", false).statusCode() == 200);
            check(version + " streams", () -> client.stream());
            check(version + " lists models", () -> client.get("/v1/models").body().contains("reviews"));
            check(version + " reads errors", () -> client.post("x".repeat(1001), false).statusCode() == 413);
        }
        System.exit(failed ? 1 : 0);
    }

    static void check(String name, Callable<Boolean> holds) {
        String problem = "it does not hold";
        try {
            if (holds.call()) {
                System.out.println("ok " + name);
                return;
            }
        } catch (Exception fault) {
            problem = fault.toString();
        }
        System.out.println("not ok " + name + ": " + problem);
        failed = true;
    }

    private final String base;
    private final HttpClient http;

    Client(String base, HttpClient http) {
        this.base = base;
        this.http = http;
    }

    HttpRequest.Builder request(String path) {
        return HttpRequest.newBuilder(URI.create(base + path)).timeout(Duration.ofSeconds(20));
    }

    HttpRequest question(String text, boolean stream) {
        String body = "{\"model\":\"reviews\",\"stream\":" + stream + ",\"messages\":[{\"role\":\"user\",\"content\":\"" + text + "\"}]}";
        return request("/v1/chat/completions")
            .header("content-type", "application/json")
            .POST(BodyPublishers.ofString(body))
            .build();
    }

    HttpResponse<String> post(String text, boolean stream) throws Exception {
        return http.send(question(text, stream), BodyHandlers.ofString());
    }

    HttpResponse<String> get(String path) throws Exception {
        return http.send(request(path).build(), BodyHandlers.ofString());
    }

    boolean oneAfterAnother(int count) throws Exception {
        for (int number = 0; number < count; number++) {
            if (!post("number " + number, false).body().contains("you said number " + number)) return false;
        }
        return true;
    }

    boolean atOnce(int count) throws Exception {
        List<CompletableFuture<HttpResponse<String>>> asked = new ArrayList<>();
        for (int number = 0; number < count; number++) {
            asked.add(http.sendAsync(question("number " + number, number % 2 == 1), BodyHandlers.ofString()));
        }
        for (int number = 0; number < count; number++) {
            HttpResponse<String> reply = asked.get(number).get();
            if (reply.statusCode() != 200 || !reply.body().contains("" + number)) return false;
        }
        return true;
    }

    boolean stream() throws Exception {
        List<String> lines = http.send(question("a b", true), BodyHandlers.ofLines()).body()
            .filter(line -> !line.isEmpty()).collect(Collectors.toList());
        return lines.get(lines.size() - 1).equals("data: [DONE]") && lines.size() > 4;
    }
}
