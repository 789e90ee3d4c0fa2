# The steps of the article on which fm is modelled ("Building a movie recommender with
# factorization machines on Amazon SageMaker", 2018), by the names that its SDK had. This text is
# not a module: tests/conformance/test_sdk.py changes the lines that it must and runs the rest.
import csv
import io
import json
import os

import boto3
import numpy as np
import sagemaker
import sagemaker.amazon.common as smac
from sagemaker import get_execution_role
from sagemaker.predictor import json_deserializer
from scipy.sparse import lil_matrix

session = sagemaker.Session()
role = get_execution_role()
region = boto3.Session().region_name

# -- the data: one-hot people and films, liked or not ---------------------------------------------

data_dir = os.environ["ML_100K"]
num_users, num_films = 943, 1682
num_features = num_users + num_films


def load_dataset(name, lines):
    X, Y = lil_matrix((lines, num_features)).astype("float32"), []
    with open(os.path.join(data_dir, name)) as file:
        for line, (user, film, rating, _) in enumerate(csv.reader(file, delimiter="\t")):
            X[line, int(user) - 1] = 1
            X[line, num_users + int(film) - 1] = 1
            Y.append(1 if int(rating) >= 4 else 0)
    return X, np.array(Y).astype("float32")


num_train, num_test = (
    sum(1 for _ in open(os.path.join(data_dir, name))) for name in ("ua.base", "ua.test")
)
X_train, Y_train = load_dataset("ua.base", num_train)
X_test, Y_test = load_dataset("ua.test", num_test)
print(X_train.shape, Y_train.shape, int(Y_train.sum()), "ones")

# -- to S3 ----------------------------------------------------------------------------------------

bucket, prefix = "fm-movielens", "sagemaker/fm-movielens"


def write_dataset(X, Y, key):
    buf = io.BytesIO()
    smac.write_spmatrix_to_sparse_tensor(buf, X, Y)
    buf.seek(0)
    obj = f"{prefix}/{key}"
    boto3.resource("s3").Bucket(bucket).Object(obj).upload_fileobj(buf)
    return f"s3://{bucket}/{obj}"


train_data = write_dataset(X_train, Y_train, "train/train.protobuf")
test_data = write_dataset(X_test, Y_test, "test/test.protobuf")
output_path = f"s3://{bucket}/{prefix}/output"

# -- training -------------------------------------------------------------------------------------

containers = {
    "us-west-2": "174872318107.dkr.ecr.us-west-2.amazonaws.com/factorization-machines:latest",
    "us-east-1": "382416733822.dkr.ecr.us-east-1.amazonaws.com/factorization-machines:latest",
    "us-east-2": "404615174143.dkr.ecr.us-east-2.amazonaws.com/factorization-machines:latest",
    "eu-west-1": "438346466558.dkr.ecr.eu-west-1.amazonaws.com/factorization-machines:latest",
}
instance_type = "ml.c4.xlarge"

fm = sagemaker.estimator.Estimator(
    containers[region],
    role,
    train_instance_count=1,
    train_instance_type=instance_type,
    output_path=output_path,
    sagemaker_session=session,
)
fm.set_hyperparameters(
    feature_dim=num_features,
    predictor_type="binary_classifier",
    mini_batch_size=1000,
    num_factors=64,
    epochs=100,
)
fm.fit({"train": train_data, "test": test_data})

# -- predictions ----------------------------------------------------------------------------------

fm_predictor = fm.deploy(instance_type=instance_type, initial_instance_count=1)


def fm_serializer(data):
    js = {"instances": []}
    for row in data:
        js["instances"].append({"features": row.tolist()})
    return json.dumps(js)


fm_predictor.content_type = "application/json"
fm_predictor.serializer = fm_serializer
fm_predictor.deserializer = json_deserializer

result = fm_predictor.predict(X_test[1000:1010].toarray())
print("RESULT", json.dumps(result))
print("LABELS", json.dumps(Y_test[1000:1010].tolist()))

session.delete_endpoint(fm_predictor.endpoint)
